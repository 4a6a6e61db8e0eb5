/** `surgetank repeated ls`: what an operator, and a script, are shown of what was taken for a message sent again. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeRepeated } from '../../manager/repeated.ts'
import { openLmdbInlet } from '../../pump/lmdb-inlet.ts'
import type { Repeated, RepeatedEntry } from '../../pump/pump.ts'
import { batchOf, RECEIVED_AT } from '../contracts/pump-samples.ts'

const run = promisify(execFile)
const HOSTILE = '{"t":"\u001b[2J\u0000\u009b"}'
const BOUNDS = { bytesMax: 16 << 20, keepHours: 1, quarantineBytesMax: 1 << 20, freeBytesMin: 0 }

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'surgetank-repeated-'))
  const inlet = await openLmdbInlet({ dir: join(dir, 'log'), ...BOUNDS })
  const repeated = [repeatedOf(1, 'press-1', HOSTILE), repeatedOf(2, 'press-2', '{"t":2}')]
  const counts = { received: 3, repeated: 2, quarantined: 0, letGo: {} }
  await inlet.append(batchOf(0, 1, { counts, repeated }))
  await inlet.close()
})
afterAll(() => rm(dir, { recursive: true, force: true }))

describe('surgetank repeated ls', () => {
  it('lists them, newest first, with time, device, why, topic, and what they said', async () => {
    const { stdout } = await surgetank('repeated', 'ls')
    const [head, ...rows] = stdout.trimEnd().split('\n')
    expect(head).toMatch(/^RECEIVED +DEVICE +WHY +TOPIC PAYLOAD$/)
    expect(rows).toHaveLength(2)
    expect(rows[0]).toMatch(/^2026-11-20T12:00:00.002Z press-2 +DUP +devices\/press-2\/telemetry \{"t":2\}$/)
    expect(rows[1]).toMatch(/^2026-11-20T12:00:00.001Z press-1 +another connection devices\/press-1\/telemetry /)
  })

  it('shows control characters of a stranger, and never sends them to a terminal', async () => {
    const { stdout } = await surgetank('repeated', 'ls', '--device', 'press-1')
    expect(stdout).toContain('{"t":"\\x1b[2J\\x00\\x9b"}')
    expect(stdout).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/)
  })

  it('lists those of one device, and no more than asked for', async () => {
    const lines = async (...more: string[]) => (await surgetank('repeated', 'ls', '--json', ...more)).stdout.split('\n')
    const [line = '', ...others] = await lines('--device', 'press-1')
    expect(others).toEqual([''])
    expect(JSON.parse(line)).toEqual({
      received_at: '2026-11-20T12:00:00.001Z',
      device: 'press-1',
      topic: 'devices/press-1/telemetry',
      why: 'other_connection',
      payload_bytes: Buffer.byteLength(HOSTILE),
      payload_base64: Buffer.from(HOSTILE).toString('base64'),
    })
    expect(JSON.parse((await lines('--limit', '1'))[0] ?? '')).toMatchObject({ device: 'press-2' })
    expect(await lines('--device', 'press-3')).toEqual([''])
  })

  it('says that there is none, and that a payload goes on', () => {
    expect(describeRepeated([])).toBe('No repetition is listed.')
    const payload = Buffer.from('x'.repeat(4_096))
    const entry: RepeatedEntry = { ...repeatedOf(1, 'press-1', ''), payload, payloadBytes: 9_000 }
    expect(describeRepeated([entry])).toMatch(/ x{80}… \(9000 bytes\)$/)
  })
})

function surgetank(...args: string[]): Promise<{ stdout: string; stderr: string }> {
  return run(process.execPath, ['dist/main.js', ...args], { env: { SURGETANK_DATA_DIR: dir } })
}

function repeatedOf(number: number, device: string, payload: string): Repeated {
  const why = number === 2 ? 'dup' : 'other_connection'
  const topic = `devices/${device}/telemetry`
  return { receivedAt: RECEIVED_AT + number, device, topic, why, payload: Buffer.from(payload) }
}
