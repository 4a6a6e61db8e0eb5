/**
 * Mutated packets from a seeded generator against a live broker, with a canary beside them whose every message must still be
 * acknowledged. The same seed sends the same packets; how many of them are sent depends on the machine.
 */
import { connect } from 'node:net'
import * as mqtt from 'mqtt-packet'
import { expect, it } from 'vitest'
import { until } from '../waits.ts'
import { acknowledged, openBench, openClient, publishPacket } from './harness.ts'

const SEED = 0x5a17
const FUZZ_MS = 4_000
const SEQUENCES_MIN = 200

const HOSTILE = [
  '',
  '#',
  '+',
  '/',
  '$SYS/x/new/clients',
  '__proto__',
  'constructor',
  'devices/__proto__/telemetry',
  'a/'.repeat(130),
]
HOSTILE.push(
  'devices/\u0000/telemetry',
  'devices/d/status',
  'devices/d/telemetry',
  '\ufffd',
  'x'.repeat(70_000),
  'devices/d/cmd/#',
)

/** mulberry32: small, seeded, good enough to choose packets. */
function openRandom(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

function makePacket(random: (below: number) => number): Buffer {
  const text = () => HOSTILE[random(HOSTILE.length)] ?? ''
  const messageId = random(4) === 0 ? 0 : random(65_536)
  const qos = random(3) as 0 | 1 | 2
  const will =
    random(2) === 0
      ? { will: { topic: text() || 'x', payload: Buffer.from(text()), qos, retain: random(2) === 0 } }
      : {}
  const packets: object[] = [
    {
      cmd: 'connect',
      clientId: text().slice(0, 300),
      protocolId: 'MQTT',
      protocolVersion: 4,
      clean: true,
      keepalive: random(3),
      ...will,
    },
    {
      cmd: 'publish',
      topic: text() || 'x',
      payload: text(),
      qos,
      messageId,
      dup: qos > 0 && random(2) === 0,
      retain: random(2) === 0,
    },
    { cmd: 'publish', topic: 'devices/d/telemetry', payload: '{"a":1}', qos, messageId, dup: false, retain: false },
    { cmd: 'subscribe', messageId, subscriptions: [{ topic: text() || 'x', qos }] },
    { cmd: 'unsubscribe', messageId, unsubscriptions: [text() || 'x'] },
    { cmd: ['puback', 'pubrec', 'pubrel', 'pubcomp'][random(4)], messageId, qos: 1 },
    { cmd: ['pingreq', 'disconnect', 'pingresp'][random(3)] },
  ]
  try {
    return mqtt.generate(packets[random(packets.length)] as mqtt.Packet)
  } catch {
    return Buffer.from([random(256), random(256), random(256)])
  }
}

function mutate(bytes: Buffer, random: (below: number) => number): Buffer {
  const mutated = Buffer.from(bytes)
  switch (random(6)) {
    case 0:
      for (let i = 0; i <= random(4); i++) mutated[random(mutated.length)] = random(256)
      return mutated
    case 1:
      return mutated.subarray(0, random(mutated.length + 1))
    case 2:
      return Buffer.concat([mutated, Buffer.from(Array.from({ length: random(20) }, () => random(256)))])
    default:
      return mutated
  }
}

it('stays up and serves others while mutated packets come in', async () => {
  const random = openRandom(SEED)
  const { broker, ingest } = await openBench({ inFlightPerClient: 16 })
  const canary = await openClient(broker.port, { clientId: 'canary' })
  const fromCanary: number[] = []
  ingest.onOffer = ({ device, held }) => {
    if (device === 'canary' && held !== null) fromCanary.push(held.messageId)
    setImmediate(() => ingest.settle())
  }
  const end = Date.now() + FUZZ_MS
  let sequences = 0
  while (Date.now() < end || sequences <= SEQUENCES_MIN) {
    await Promise.all(Array.from({ length: 8 }, () => sendSequence()))
    sequences += 8
    canary.send(publishPacket((sequences / 8) % 65_535 || 1, { topic: 'devices/canary/telemetry' }))
    ingest.offered.length = 0
  }
  const sent = sequences / 8
  await until(() => acknowledged(canary).length === sent)
  expect(fromCanary).toHaveLength(sent)
  await until(() => broker.connections === 1)

  async function sendSequence(): Promise<void> {
    const clientId = `fuzz-${random(4)}`
    const hello = {
      cmd: 'connect',
      clientId,
      protocolId: 'MQTT',
      protocolVersion: 4,
      clean: true,
      keepalive: 60,
    } as const
    const bytes = [random(8) === 0 ? makePacket(random) : mqtt.generate(hello)]
    for (let i = random(8); i >= 0; i--) bytes.push(mutate(makePacket(random), random))
    const together = random(2) === 0
    const socket = connect({ host: '127.0.0.1', port: broker.port, noDelay: true })
    socket.on('error', () => undefined)
    socket.resume()
    const closed = new Promise<void>(resolve => socket.once('close', () => resolve()))
    for (const chunk of together ? [Buffer.concat(bytes)] : bytes) socket.write(chunk)
    socket.end()
    await closed
  }
})
