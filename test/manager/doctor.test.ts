/** `surgetank doctor` looks and leaves nothing behind. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { examine } from '../../manager/doctor.ts'
import { readSettings } from '../../settings.ts'

let root: string

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'surgetank-doctor-'))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

it('measures the disk that the data directory would be made on, and does not make it', async () => {
  const findings = await examineOn(join(root, 'some', 'where', 'data'))
  expect(findings.map(({ what }) => what)).toEqual(expect.arrayContaining(['disk', 'fsync']))
  expect(findings.filter(({ verdict }) => verdict === 'stop')).toEqual([])
  expect(readdirSync(root)).toEqual([])
})

it('measures the disk of a data directory that is there, and leaves it as it was', async () => {
  await examineOn(root)
  expect(readdirSync(root)).toEqual([])
})

it('says that it would not start where a file is in the way', async () => {
  writeFileSync(join(root, 'file'), '')
  const findings = await examineOn(join(root, 'file', 'data'))
  expect(findings.filter(({ verdict }) => verdict === 'stop')).toMatchObject([{ what: 'disk' }])
  expect(readdirSync(root)).toEqual(['file'])
})

function examineOn(dir: string) {
  const ports = { SURGETANK_MQTT_PORT: '0', SURGETANK_HTTP_PORT: '0', SURGETANK_SQL_PORT: '0' }
  return examine(readSettings({ SURGETANK_DATA_DIR: dir, ...ports }))
}
