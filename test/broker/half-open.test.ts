/** A peer that ends its half of the connection after its last PUBLISH still gets what it is owed. */
import { once } from 'node:events'
import { connect as connectSocket } from 'node:net'
import * as mqtt from 'mqtt-packet'
import { describe, expect, it, onTestFinished } from 'vitest'
import { until } from '../waits.ts'
import { openHandStore } from './hand-store.ts'
import { connectPacket, openBench, publishPacket } from './harness.ts'

/** Ends its half after these packets and reads on; resolves with all that it got when the broker has closed, too. */
async function sendAndEnd(port: number, packets: readonly mqtt.Packet[]): Promise<{ answers: Promise<mqtt.Packet[]> }> {
  const socket = connectSocket({ host: '127.0.0.1', port, allowHalfOpen: true })
  onTestFinished(() => void socket.destroy())
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  const answers: mqtt.Packet[] = []
  const parser = mqtt.parser().on('packet', packet => answers.push(packet))
  socket.on('data', bytes => parser.parse(bytes))
  socket.end(Buffer.concat(packets.map(packet => mqtt.generate(packet))))
  return { answers: once(socket, 'end').then(() => answers) }
}

const STATUS = 'devices/press-17/status'
const will = { topic: STATUS, payload: Buffer.from('offline'), qos: 1 as const, retain: false }

describe('a peer that ends its half', () => {
  it.each([
    ['one', 1],
    ['more messages than may be in flight', 10],
  ])(
    'gets the acknowledgement of %s that came before its FIN, once they are durable [MQTT-4.3.2-2]',
    async (_, count) => {
      const { broker, ingest } = await openBench({ inFlightPerClient: 4 })
      const messages = Array.from({ length: count }, (_, i) => publishPacket(i + 1, { qos: i % 2 === 0 ? 1 : 2 }))
      const { answers } = await sendAndEnd(broker.port, [connectPacket(), ...messages])
      await until(() => ingest.held > 0)
      expect(broker.connections).toBe(1)
      ingest.onOffer = () => setImmediate(() => ingest.settle())
      ingest.settle()
      const [connack, ...acks] = await answers
      expect(connack).toMatchObject({ cmd: 'connack', returnCode: 0 })
      expect(acks.map(({ messageId }) => messageId)).toEqual(messages.map(({ messageId }) => messageId))
      await until(() => broker.connections === 0)
    },
  )

  it('gets the CONNACK, SUBACK and UNSUBACK that it asked for before, however long its session takes to be saved', async () => {
    const sessionStore = openHandStore()
    const { broker } = await openBench({ sessionStore })
    const filter = 'devices/press-17/cmd/#'
    const { answers } = await sendAndEnd(broker.port, [
      connectPacket({ clean: false }),
      { cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: filter, qos: 1 }] },
      { cmd: 'unsubscribe', messageId: 2, unsubscriptions: [filter] },
    ])
    expect((await answers).map(({ cmd }) => cmd).sort()).toEqual(['connack', 'suback', 'unsuback'])
    await until(() => broker.connections === 0)
  })

  it('has its will sent when it did not disconnect, and is offline [MQTT-3.1.2-8]', async () => {
    const { broker, ingest, space } = await openBench()
    const { answers } = await sendAndEnd(broker.port, [connectPacket({ will }), publishPacket(1)])
    await until(() => ingest.held === 1)
    expect(space.online('press-17')).not.toBe(false)
    ingest.settle()
    expect((await answers).map(({ cmd }) => cmd)).toEqual(['connack', 'puback'])
    await until(() => space.online('press-17') === false)
  })

  it('is closed at its DISCONNECT, without its will [MQTT-3.14.4-3]', async () => {
    const { broker, ingest, space } = await openBench()
    const other = { ...will, topic: 'devices/press-18/status' }
    const { answers } = await sendAndEnd(broker.port, [
      connectPacket({ will: other }),
      publishPacket(1),
      { cmd: 'disconnect' },
    ])
    await answers
    await until(() => broker.connections === 0)
    ingest.settle()
    // What its end says comes after what its will would.
    await until(() => space.online('press-17') === false)
    expect(space.changes.filter(({ device }) => device === 'press-18')).toEqual([])
  })

  it('does not wait for ever for a log that takes nothing', async () => {
    const { broker, ingest } = await openBench()
    const { answers } = await sendAndEnd(broker.port, [connectPacket(), publishPacket(1)])
    await until(() => ingest.held === 1)
    ingest.stalled = true
    await answers.catch(() => undefined)
    await until(() => broker.connections === 0)
    expect(ingest.held).toBe(1)
  })

  it('is closed at once when half a packet is all that is left', async () => {
    const { broker } = await openBench()
    const socket = connectSocket({ host: '127.0.0.1', port: broker.port })
    onTestFinished(() => void socket.destroy())
    socket.end(Buffer.concat([mqtt.generate(connectPacket()), Buffer.from([0x30])]))
    socket.resume()
    await once(socket, 'close')
  })
})
