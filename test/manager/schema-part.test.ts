/** The schema beside everything else: tried again for as long as it takes, told in the log, and known to whoever asks. */
import { pino } from 'pino'
import { expect, it } from 'vitest'
import type { MigrationStep } from '../../database/database.ts'
import { SurgetankError } from '../../errors.ts'
import { openSchemaPart, percentOf } from '../../manager/schema-part.ts'

const STEP: MigrationStep = { from: 3, to: 4, what: 'readings of 20260115', rows: 0, rowsAll: 1_000, secondsLeft: null }

/** A log whose lines are kept. */
function openLogLines() {
  const kept: string[] = []
  return { log: pino({}, { write: (line: string) => void kept.push(line) }), lines: () => kept }
}

it('says from where to where it goes, that there is no way back but a copy, how far it is, and the end', async () => {
  const { log, lines } = openLogLines()
  let tell = (_: MigrationStep) => {}
  let end = () => {}
  const part = openSchemaPart(
    {
      migrate: told => {
        tell = told ?? tell
        return new Promise(resolve => (end = resolve))
      },
    },
    log,
  )
  expect(part.state).toEqual({ done: false, step: null, failure: null })
  tell(STEP)
  await part.known
  tell({ ...STEP, rows: 500, secondsLeft: 9 })
  expect(part.state).toMatchObject({ done: false, step: { rows: 500, secondsLeft: 9 } })
  end()
  await part.done
  expect(part.state).toEqual({ done: true, step: null, failure: null })
  const said = lines().map(line => JSON.parse(line) as Record<string, unknown>)
  expect(said[0]).toMatchObject({ from: 3, to: 4 })
  expect(said[1]).toMatchObject({ rows: 1_000, msg: expect.stringContaining('no way back but a copy') })
  expect(said[2]).toMatchObject({ what: 'readings of 20260115', percent: 0 })
  expect(said.at(-1)).toMatchObject({ from: 3, to: 4, msg: 'the schema has this version' })
})

it('shows what an operator must mend, and tries again what may come by itself', async () => {
  const { log } = openLogLines()
  const answers = [
    new SurgetankError('database_unavailable', 'It is away.'),
    new SurgetankError('database_no_room', 'Make room.'),
  ]
  const part = openSchemaPart({ migrate: () => Promise.reject(answers.shift()) }, log)
  await part.known
  expect(part.state.failure).toBe(null)
  await expect.poll(() => part.state.failure?.code).toBe('database_no_room')
  part.close()
  await expect(part.done).rejects.toThrow()
})

it('counts a hundred percent only when all is done', () => {
  expect([0, 999, 1_000].map(rows => percentOf({ rows, rowsAll: 1_000 }))).toEqual([0, 99, 100])
  expect(percentOf({ rows: 0, rowsAll: 0 })).toBe(0)
})
