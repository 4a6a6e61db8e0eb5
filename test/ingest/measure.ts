/**
 * What a message costs in ingest, in µs, the best of a few rounds: `node dist/test/ingest/measure.js`.
 * Decoding alone by shape, hostile payloads of 256 KB, the window of repetitions, and `offer` with its line over a log that
 * only joins and counts.
 */
import { randomInt } from 'node:crypto'
import { decodePayload, openWritten } from '../../ingest/decode.ts'
import { openIngest } from '../../ingest/group-commit.ts'
import { openRepetitions } from '../../ingest/repetitions.ts'
import { encodeReadings, LINE_FORMAT, lineHead } from '../../model/message.ts'
import type { Reading } from '../../model/reading.ts'
import { openHandLog, turn } from './hand-driven.ts'

const NOW = Date.now()
const RECEIVED_AT = NOW * 1000
const written = openWritten()
const ROUNDS = 8
const five = (index: number) =>
  `{"temperature":${(20 + index * 0.01).toFixed(2)},"pressure":${1000 + index},"humidity":${(40 + index * 0.1).toFixed(1)},"on":${index % 2 === 0},"rpm":${1480 + index}}`

const SHAPES: Record<string, (index: number) => string> = {
  'one metric': index => `{"temperature":${(20 + index * 0.01).toFixed(2)}}`,
  'five metrics': five,
  'five metrics with ts': index => `{"ts":${NOW - index},"values":${five(index)}}`,
  'nested, seven metrics': index =>
    `{"ENERGY":{"Total":${index}.456,"Power":[12,13,14],"Voltage":230},"AM2301":{"Temperature":21.4},"TempUnit":"C"}`,
  'text beyond ASCII': index => `{"state":"running at full speed","name":"Presse Süd №${index}","n":1}`,
}
const HOSTILE: Record<string, string> = {
  '256 KB of brackets': '['.repeat(262_144),
  '256 KB of nested objects': '{"a":'.repeat(52_000),
  '100,000 places of a list': `{"a":[${'1,'.repeat(100_000)}1]}`,
  '20,000 empty branches': `{${Array.from({ length: 20_000 }, (_, at) => `"m${at}":{}`).join()}}`,
  '1,000 readings': `{${Array.from({ length: 1000 }, (_, at) => `"m${at}":${at}`).join()}}`,
}

for (const [shape, write] of Object.entries(SHAPES)) {
  const payloads = Array.from({ length: 512 }, (_, index) => Buffer.from(write(index)))
  const us = best(100_000, index => decodePayload(payloads[index & 511] as Buffer, null, RECEIVED_AT, written))
  print(`decode: ${shape}, ${payloads[0]?.length} bytes`, us)
}
for (const [what, text] of Object.entries(HOSTILE)) {
  const payload = Buffer.from(text)
  print(
    `decode: ${what}`,
    best(20, () => decodePayload(payload, null, RECEIVED_AT)),
  )
}

const messages = Array.from({ length: 512 }, (_, index) => {
  return decodePayload(Buffer.from(`{"ts":${NOW - index},"values":${five(index)}}`), null, RECEIVED_AT) as Reading[]
})
const line = (index: number) =>
  `${lineHead('press-17', RECEIVED_AT, 17, null)}${encodeReadings(messages[index & 511] ?? [])}}`
print(
  'line: five metrics with ts, flattened',
  best(100_000, index => line(index).charCodeAt(3)),
)

const repetitions = openRepetitions(() => randomInt(2 ** 32))
const texts = Array.from({ length: 100_000 }, (_, index) =>
  Buffer.from(`[["temperature",${NOW + index}000,21.5],["rpm",${NOW}000,1480]]`),
)
const origin = { connection: 1, packet: 17, dup: false, marksDup: false, mark: null }
print(
  'window: one message',
  best(texts.length, index => {
    const lines = texts[index] as Buffer
    return repetitions.remember('press-17', { lines, readingsAt: 0, readingsEnd: lines.length }, origin)
  }),
)
print(
  'window: one of many equal messages',
  best(10_000, () => {
    const lines = texts[0] as Buffer
    return repetitions.remember('press-18', { lines, readingsAt: 0, readingsEnd: lines.length }, origin)
  }),
)
const tail = Buffer.from(Array.from({ length: 200_000 }, (_, index) => line(index)).join('\n'))
print(
  'window: 200,000 lines at start',
  best(1, () => repetitions.rememberLines(tail, LINE_FORMAT)),
)

for (const shape of ['one metric', 'five metrics', 'five metrics with ts']) {
  print(`offer and line: ${shape}`, await offerAll(SHAPES[shape] as (index: number) => string))
}

/** All of ingest but the log and the space, which only take what they are given. */
async function offerAll(write: (index: number) => string): Promise<number> {
  const space = { claimMetric: () => 'ok' as const, merge: async () => {}, trackUnmerged: () => {} }
  let bytes = 0
  const append = async ({ lines }: { lines: Buffer }) => {
    bytes += lines.length
  }
  const ingest = await openIngest<null>(
    {
      pump: { append, tail: async () => [], async *appendedByOthers() {}, newestReceivedAt: 0 },
      space,
      limits: { heldBytesMax: 1e9 },
      log: openHandLog(),
      failed: () => {},
    },
    { settled: () => {}, pressureChanged: () => {} },
  )
  const count = 50_000
  let least = Number.POSITIVE_INFINITY
  for (let round = 0; round < ROUNDS; round++) {
    const payloads = Array.from({ length: count }, (_, index) => Buffer.from(write(round * count + index)))
    const start = performance.now()
    for (let index = 0; index < count; index++) {
      const payload = payloads[index] as Buffer
      const packet = (index & 0xff) + 1
      const came = { connection: 1, packet, dup: false, marksDup: false, mark: null }
      ingest.offer({ device: 'press-17', metric: null, topic: '', payload, receivedAt: NOW, held: null, ...came })
      if (index % 500 === 499) await turn()
    }
    await ingest.drain(10_000)
    least = Math.min(least, ((performance.now() - start) * 1000) / count)
  }
  await ingest.close()
  if (bytes === 0) throw new Error('nothing was written')
  return least
}

function best(count: number, run: (index: number) => unknown): number {
  let least = Number.POSITIVE_INFINITY
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now()
    for (let index = 0; index < count; index++) run(index)
    least = Math.min(least, ((performance.now() - start) * 1000) / count)
  }
  return least
}

function print(what: string, us: number): void {
  process.stdout.write(`${what.padEnd(48)} ${us.toFixed(2).padStart(10)} µs\n`)
}
