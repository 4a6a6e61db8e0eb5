/** Who is refused because of older processes: what Redis tells is given here, the log is real. */
import { pino } from 'pino'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { LogPlace } from '../../manager/adapters.ts'
import { refuseBeforeReaders } from '../../manager/side-by-side.ts'
import { encodeLine } from '../../model/message.ts'
import { onlyLines } from '../contracts/pump-samples.ts'
import { makeLogOfFormat1 } from '../pump/lmdb-format-1.ts'
import { type LmdbHarness, openLmdbHarness } from '../pump/lmdb-harness.ts'

const LOOK_MS = 700
/** One that was forgotten, and repairs a unit that was lost. */
const older = async () => ({ brokers: [], readers: ['reader-1'] })

let harness: LmdbHarness
beforeEach(async () => {
  harness = await openLmdbHarness()
})
afterEach(() => harness.destroy())

it('a new broker waits for an older reader while the log has only lines that it can read', async () => {
  await makeLogOfFormat1(harness.dir, 3, 0)
  const { begun, said } = look(await harness.openInlet())
  await expect(begun).rejects.toMatchObject({ name: 'TimeoutError' })
  expect(said()).toContain('waiting for older processes to end')
})

it('a new broker begins beside an older reader when the log holds lines of this format, and says who is older', async () => {
  const inlet = await harness.openInlet()
  const lines = Buffer.from(encodeLine({ device: 'press-1', receivedAt: 1_000, readings: [] }))
  await inlet.append({ lines, ...onlyLines(1), readings: 1, firstReceivedAt: 1, lastReceivedAt: 1 })
  const { begun, said } = look(inlet)
  await begun
  expect(said()).toContain('the reader reader-1 in Redis')
})

function look(inlet: Awaited<ReturnType<LmdbHarness['openInlet']>>) {
  let said = ''
  const log = pino({}, { write })
  const place: LogPlace = { kind: 'directory', dir: harness.dir, keepHours: 1, bytesMax: 1, quarantineBytesMax: 1 }
  const begun = refuseBeforeReaders({ log: place, inlet, older }, { log, stopping: AbortSignal.timeout(LOOK_MS) })
  return { begun, said: () => said }

  function write(line: string): void {
    said += line
  }
}
