/** `surgetank quarantine ls|show`: the size of what was refused, for a person and for a script. */
import { describe, expect, it } from 'vitest'
import { describeEntries, describeEntry, entryToJson } from '../../manager/quarantine.ts'
import type { QuarantineEntry } from '../../pump/pump.ts'

const whole: QuarantineEntry = {
  id: 'm1',
  receivedAt: Date.UTC(2026, 10, 20, 12),
  device: 'press-17',
  where: 'devices/press-17/telemetry',
  reason: 'invalid_json',
  detail: 'The payload is not JSON.',
  bytes: Buffer.from('{'),
  bytesTotal: 1,
}
const cut = { ...whole, id: 'm2', reason: 'packet_too_large', bytes: Buffer.alloc(1_024, 'x'), bytesTotal: 3_000_000 }

describe('surgetank quarantine', () => {
  it('lists how large each was', () => {
    const [head, ...rows] = describeEntries([cut, whole]).split('\n')
    expect(head).toMatch(/^ID +RECEIVED +DEVICE +REASON +BYTES +WHERE$/)
    expect(rows[0]).toMatch(/^m2 .* packet_too_large +3000000 +devices\/press-17\/telemetry$/)
    expect(rows[1]).toMatch(/^m1 .* invalid_json +1 +devices\/press-17\/telemetry$/)
  })

  it('shows how much is kept where that is not all', () => {
    expect(describeEntry(whole)).toMatch(/^bytes {5}1$/m)
    expect(describeEntry(cut)).toMatch(/^bytes {5}3000000, of which the first 1024 are kept$/m)
  })

  it('tells a script the size of the whole', () => {
    expect(entryToJson(whole)).toEqual({
      id: 'm1',
      received_at: '2026-11-20T12:00:00.000Z',
      device: 'press-17',
      where: 'devices/press-17/telemetry',
      reason: 'invalid_json',
      detail: 'The payload is not JSON.',
      payload_bytes: 1,
      payload_base64: 'ew==',
    })
    expect(entryToJson(cut)).toMatchObject({ payload_bytes: 3_000_000 })
  })
})
