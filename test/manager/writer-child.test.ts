/** The writer's own process on a log that it cannot go on with: what it says reaches its parent, and `/readyz`. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { ACCESS_DEFAULTS } from '../../database/database.ts'
import type { WriterConfig } from '../../manager/child-messages.ts'
import { checkHealth } from '../../manager/health.ts'
import type { Supervised } from '../../manager/supervise.ts'
import { superviseWriter } from '../../manager/writer-child.ts'
import { encodeLine } from '../../model/message.ts'
import type { Reading } from '../../model/reading.ts'
import { openEnv } from '../../pump/lmdb-env.ts'
import { type LogMeta, putLogMeta, readLogMeta } from '../../pump/lmdb-log.ts'
import { onlyLines } from '../contracts/pump-samples.ts'
import { type LmdbHarness, openLmdbHarness } from '../pump/lmdb-harness.ts'
import { until } from '../waits.ts'

const READING: Reading = { metric: 'temperature', ts: 1, receivedAt: 1, sentTs: null, value: 21.5 }

let log: LmdbHarness

beforeEach(async () => {
  log = await openLmdbHarness()
})
afterEach(() => log.destroy())

it('a log of a newer version: it ends, its reason is shown, and devices are served all the same [G5]', async () => {
  await makeNewer()
  const writer = await startWriter(log.dir)
  await until(() => writer.failure !== null, 'the reason is known')
  expect(writer.failure).toMatchObject({ code: 'log_newer', fate: 'stop' })
  const checks = checkHealth({
    space: { warm: true },
    databaseUp: () => true,
    schema: () => ({ done: true, step: null, failure: null }),
    writer: () => writer,
    stalled: () => false,
  })
  expect(checks.filter(({ ok }) => !ok)).toMatchObject([
    { name: 'writer', required: false, detail: expect.stringContaining('Start the newer surgetank.') },
  ])
  await writer.stop()
})

it('what an operator must mend is logged as a sentence, without a trace', async () => {
  await makeNewer()
  const child = fork('dist/manager/writer-process.js', [], { execArgv: [], silent: true })
  let lines = ''
  child.stderr?.on('data', text => (lines += text))
  await once(child, 'message')
  child.send({ ...configOf(log.dir), logLevel: 'fatal' })
  await once(child, 'close')
  expect(JSON.parse(lines)).toMatchObject({
    why: expect.stringContaining('Start the newer surgetank.'),
    code: 'log_newer',
    msg: 'the writer cannot go on',
  })
  expect(lines).not.toContain('stack')
})

it('ends with its parent, also in the middle of a transaction', async () => {
  const child = fork('dist/test/manager/writer-in-a-write.js', [join(log.dir, 'another')], { execArgv: [] })
  await until(() => child.exitCode !== null || child.signalCode !== null, 'it has ended').finally(() =>
    child.kill('SIGKILL'),
  )
})

it('a log that cannot be opened at all: the start is refused with the reason', async () => {
  const dir = `${process.execPath}/log`
  await expect(startWriter(dir)).rejects.toMatchObject({ code: 'data_dir_unusable', fate: 'stop' })
})

it('a stop during an insert that never ends gives it up by itself, also when it is asked for twice', async () => {
  const inlet = await log.openInlet()
  const lines = Buffer.from(encodeLine({ device: 'press-1', receivedAt: 1, readings: [READING] }))
  await inlet.append({ lines, ...onlyLines(1), readings: 1, firstReceivedAt: 1, lastReceivedAt: 1 })
  const silent = createServer(() => {}).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  const child = fork('dist/manager/writer-process.js', [], { execArgv: [] })
  await once(child, 'message')
  child.send(configOf(log.dir, port))
  await once(silent, 'request')
  const exited = once(child, 'exit')
  for (let asked = 0; asked < 10; asked++) {
    child.kill('SIGTERM')
    await pause(50)
  }
  expect(await exited).toEqual([0, null])
  silent.closeAllConnections()
  silent.close()
})

it('a stop while the schema is brought up to date does not wait for that', async () => {
  const silent = createServer(() => {}).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  const child = fork('dist/manager/writer-process.js', [], { execArgv: [] })
  await once(child, 'message')
  child.send({ ...configOf(log.dir, port), migrates: true })
  await once(silent, 'request')
  const since = performance.now()
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  expect(await exited).toEqual([0, null])
  expect(performance.now() - since).toBeLessThan(2_000)
  silent.closeAllConnections()
  silent.close()
})

/** The log becomes one of a newer version. */
async function makeNewer(): Promise<void> {
  await (await log.openInlet()).close()
  const env = openEnv({ path: join(log.dir, 'log'), writable: true, mapBytes: 1 << 20 })
  await env.write(db => putLogMeta(db, { ...(readLogMeta(db) as LogMeta), format: 99 }))
  await env.close()
}

function startWriter(logDir: string): Promise<Supervised> {
  return superviseWriter(configOf(logDir), pino({ level: 'silent' }), () => {})
}

/** No ClickHouse is there, unless a port is given. */
function configOf(dir: string, port = 1): WriterConfig {
  const log = { kind: 'directory', dir, bytesMax: 64 << 20, keepHours: 1, quarantineBytesMax: 1 << 20 } as const
  const database = { ...ACCESS_DEFAULTS, url: `http://127.0.0.1:${port}`, user: 'surgetank', password: '' }
  return { log, database, migrates: false, batchRows: 1_000, batchMs: 50, logLevel: 'silent' }
}
