/** `surgetank doctor` looks and leaves nothing behind. */
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { examine, type Finding, judgePort } from '../../manager/doctor.ts'
import { examineReceipts } from '../../manager/doctor-servers.ts'
import { openLmdbInlet } from '../../pump/lmdb-inlet.ts'
import { readSettings } from '../../settings.ts'
import { batchOf, RECEIVED_AT } from '../contracts/pump-samples.ts'
import { kafkaOptions } from '../pump/kafka-harness.ts'

let root: string

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'surgetank-doctor-'))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

it('measures the disk that the data directory would be made on, and does not make it', async () => {
  const findings = await examineOn(join(root, 'some', 'where', 'data'))
  expect(findings.map(({ what }) => what)).toEqual(expect.arrayContaining(['disk', 'fsync']))
  expect(stopsOf(findings)).toEqual([])
  expect(readdirSync(root)).toEqual([])
})

it('measures the disk of a data directory that is there, and leaves it as it was', async () => {
  await examineOn(root)
  expect(readdirSync(root)).toEqual([])
})

it('says when the last receipt of the log is more than a minute ahead of the clock [G4]', async () => {
  const place = {
    kind: 'directory',
    dir: join(root, 'log'),
    keepHours: 1,
    bytesMax: 1 << 30,
    quarantineBytesMax: 1 << 20,
  } as const
  const inlet = await openLmdbInlet(place)
  await inlet.append(batchOf(0, 2))
  await inlet.close()
  const [wrong] = await examineReceipts(place, RECEIVED_AT - 61_000)
  expect(wrong).toMatchObject({ what: 'receipts', verdict: 'warn' })
  expect(wrong?.found).toContain('61 s ahead of the clock')
  expect(await examineReceipts(place, RECEIVED_AT)).toMatchObject([{ what: 'receipts', verdict: 'ok' }])
  expect(await examineReceipts({ ...place, dir: join(root, 'none') }, 0)).toEqual([])
})

it('says when the receipts of the log could not be read in time', async () => {
  const silent = createServer().listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  const place = { kind: 'kafka', ...kafkaOptions({ brokers: `127.0.0.1:${port}` }) } as const
  const findings = await examineReceipts(place, RECEIVED_AT, 50)
  silent.close()
  expect(findings).toMatchObject([{ what: 'receipts', found: 'could not be read in time', verdict: 'warn' }])
})

it('says that it would not start where a file is in the way', async () => {
  writeFileSync(join(root, 'file'), '')
  const findings = await examineOn(join(root, 'file', 'data'))
  expect(stopsOf(findings)).toMatchObject([{ what: 'disk' }])
  expect(readdirSync(root)).toEqual(['file'])
})

it('tells an address of another machine from a port that is taken', async () => {
  const listen = { SURGETANK_LISTEN: '192.0.2.1', SURGETANK_UNAUTHENTICATED: 'allow' }
  const elsewhere = stopsOf(await examineOn(root, listen))
  expect(elsewhere).toHaveLength(2)
  for (const finding of elsewhere)
    expect(finding).toMatchObject({
      found: '192.0.2.1 is no address of this machine',
      advice: 'Set SURGETANK_LISTEN to one that is.',
    })
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const taken = stopsOf(await examineOn(root, { SURGETANK_HTTP_PORT: String(port) }))
  expect(taken).toMatchObject([{ what: `port ${port}`, found: 'taken', advice: 'Set SURGETANK_HTTP_PORT to another.' }])
  server.close()
})

it('tells a port that only the superuser may have from one that is taken', () => {
  const finding = judgePort('EACCES', { name: 'SURGETANK_MQTT_PORT', host: '127.0.0.1' })
  expect(finding).toMatchObject({ verdict: 'stop', advice: 'Set SURGETANK_MQTT_PORT to one from 1024 on.' })
})

it('says that what answers at CLICKHOUSE_URL is none, in one line', async () => {
  const server = createHttpServer((_, response) => response.end('<html>\n<body>Hello</body>\n</html>'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const stops = stopsOf(await examineOn(root, { CLICKHOUSE_URL: `http://127.0.0.1:${port}` }))
  server.close()
  expect(stops).toMatchObject([{ what: 'clickhouse', found: expect.stringContaining('is not ClickHouse') }])
  expect(stops[0]?.found).not.toMatch(/\n|<html>/)
})

function stopsOf(findings: readonly Finding[]): Finding[] {
  return findings.filter(({ verdict }) => verdict === 'stop')
}

function examineOn(dir: string, env: Readonly<Record<string, string>> = {}) {
  const ports = { SURGETANK_MQTT_PORT: '0', SURGETANK_HTTP_PORT: '0', SURGETANK_SQL_PORT: '0' }
  return examine(readSettings({ SURGETANK_DATA_DIR: dir, ...ports, ...env }))
}
