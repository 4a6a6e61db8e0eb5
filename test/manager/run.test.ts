/** A process of surgetank from its start to its end. */
import { fork } from 'node:child_process'
import { join } from 'node:path'
import { afterEach, beforeEach, it } from 'vitest'
import { type LmdbHarness, openLmdbHarness } from '../pump/lmdb-harness.ts'
import { until } from '../waits.ts'

let log: LmdbHarness

beforeEach(async () => {
  log = await openLmdbHarness()
})
afterEach(() => log.destroy())

it('a second signal ends it also in the middle of a transaction of the log', async () => {
  const child = fork('dist/test/manager/run-in-a-write.js', [join(log.dir, 'another')], { silent: true })
  await until(() => child.exitCode !== null || child.signalCode !== null, 'it has ended').finally(() =>
    child.kill('SIGKILL'),
  )
})
