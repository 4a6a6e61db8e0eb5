/** Lines that strangers can cause: a few of each kind and reason in ten seconds, then their number. */
import { pino } from 'pino'
import { expect, it } from 'vitest'
import { openSampledLog } from '../../broker/sampled-log.ts'

it('lines of one reason hide none of another, and what was left out is counted by reason', () => {
  const lines: Record<string, unknown>[] = []
  let now = 0
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) }
  const log = openSampledLog(pino({ level: 'debug' }, stream), () => now)
  for (let n = 0; n < 7; n++) log.warn('connection refused', { reason: 'malformed_packet', client: `c${n}` })
  log.warn('connection refused', { reason: 'packet_too_large', client: 'large' })
  expect(lines.map(({ client }) => client)).toEqual(['c0', 'c1', 'c2', 'c3', 'c4', 'large'])
  now = 10_000
  log.tick()
  expect(lines.at(-1)).toMatchObject({ msg: 'connection refused', reason: 'malformed_packet', leftOut: 2 })
})
