/** What a 3.1.1 server must close a connection on, each by its clause, as the bytes that break it. */
import { once } from 'node:events'
import { connect as connectSocket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { until } from '../waits.ts'
import { openBench, openClient, openRaw, ping } from './harness.ts'

type Bytes = readonly number[]

function text(of: string | Bytes): number[] {
  const bytes = Buffer.from(of as string)
  return [bytes.length >> 8, bytes.length & 0xff, ...bytes]
}

function packet(first: number, body: Bytes): Buffer {
  return Buffer.from([first, body.length, ...body])
}

interface Connect {
  readonly name?: string
  readonly level?: number
  readonly flags?: number
  readonly id?: string | Bytes
  readonly rest?: Bytes
}

const CLEAN = 0x02
const WILL = 0x04
const WILL_RETAIN = 0x20
const PASSWORD = 0x40
const USER_NAME = 0x80

function connect({ name = 'MQTT', level = 4, flags = CLEAN, id = 'press-17', rest = [] }: Connect): Buffer {
  return packet(0x10, [...text(name), level, flags, 0, 60, ...text(id), ...rest])
}

const STATUS = 'devices/press-17/status'
const ILL_FORMED = [0x61, 0xed, 0xa0, 0x80]

describe('a CONNECT that breaks a rule', () => {
  it.each<[string, string, Connect]>([
    ['MQTT-3.1.2-1', 'another protocol name', { name: 'MQTTX' }],
    ['MQTT-3.1.2-3', 'the reserved flag', { flags: CLEAN | 1 }],
    ['MQTT-3.1.2-13', 'a will QoS without a will', { flags: CLEAN | 0x08 }],
    ['MQTT-3.1.2-15', 'a will to be retained without a will', { flags: CLEAN | WILL_RETAIN }],
    ['MQTT-3.1.2-14', 'will QoS 3', { flags: CLEAN | WILL | 0x18, rest: [...text(STATUS), ...text('offline')] }],
    ['MQTT-3.1.2-22', 'a password without a user name', { flags: CLEAN | PASSWORD, rest: text('secret') }],
    ['MQTT-3.1.2-18', 'a user name without its flag', { rest: text('name') }],
    ['MQTT-1.5.3-1', 'an ill-formed client id', { id: ILL_FORMED }],
    ['MQTT-1.5.3-2', 'U+0000 in the client id', { id: 'press\0' }],
    ['MQTT-1.5.3-1', 'an ill-formed user name', { flags: CLEAN | USER_NAME, rest: text(ILL_FORMED) }],
    ['MQTT-1.5.3-2', 'U+0000 in the user name', { flags: CLEAN | USER_NAME, rest: text('\0') }],
    ['MQTT-1.5.3-1', 'an ill-formed will topic', { flags: CLEAN | WILL, rest: [...text([0xff]), ...text('')] }],
    ['MQTT-1.5.3-2', 'U+0000 in the will topic', { flags: CLEAN | WILL, rest: [...text(`${STATUS}\0`), ...text('')] }],
    [
      'MQTT-3.3.2-2',
      'a wildcard in the will topic',
      { flags: CLEAN | WILL, rest: [...text('devices/+'), ...text('')] },
    ],
    ['MQTT-4.7.3-1', 'an empty will topic', { flags: CLEAN | WILL, rest: [...text(''), ...text('')] }],
    [
      'The packet ends within a field.',
      'a cut password',
      { flags: CLEAN | USER_NAME | PASSWORD, rest: [...text('u'), 0, 9] },
    ],
    ['The packet ends within a field.', 'a user name that is not there', { flags: CLEAN | USER_NAME }],
  ])('[%s] is closed without an answer: %s', async (clause, _what, given) => {
    const { broker, lines } = await openBench()
    const client = await openRaw(broker.port)
    client.socket.write(connect(given))
    await client.closed
    expect(client.received).toEqual([])
    expect(lines.join('\n')).toContain(clause)
  })

  it.each<[string, Connect, string]>([
    ['level 6', { level: 6 }, '20020001'],
    ['level 3 of MQTT', { level: 3 }, '20020001'],
    ['level 4 of MQIsdp', { name: 'MQIsdp', level: 4 }, '20020001'],
    ['level 0', { level: 0 }, '20020001'],
    ['MQTT 5', { level: 5, rest: [] }, '2003008400'],
  ])('[MQTT-3.1.2-2] answers %s in its own form, and then closes', async (_what, given, answer) => {
    const { broker, lines } = await openBench()
    const client = await openRaw(broker.port)
    const answers: Buffer[] = []
    client.socket.removeAllListeners('data').on('data', bytes => answers.push(bytes))
    const bytes =
      given.level === 5
        ? packet(0x10, [...text('MQTT'), 5, CLEAN, 0, 60, 5, 0x11, 0, 0, 0, 1, ...text('press-17')])
        : connect(given)
    client.socket.write(bytes)
    await client.closed
    expect(Buffer.concat(answers).toString('hex')).toBe(answer)
    await until(() => lines.some(line => line.includes('protocol_version')))
    expect(lines.find(line => line.includes('protocol_version'))).toContain('"client":"press-17"')
  })

  it.each([3, 4])('takes a bridge of Mosquitto, which sets bit 7 of level %i', async level => {
    const { broker } = await openBench()
    const client = await openRaw(broker.port)
    client.socket.write(connect({ name: level === 3 ? 'MQIsdp' : 'MQTT', level: level | 0x80 }))
    expect(await client.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
    await ping(client)
  })

  it('does not wait for a client that was refused and never closes', async () => {
    const { broker } = await openBench()
    const socket = connectSocket({ host: '127.0.0.1', port: broker.port, allowHalfOpen: true })
    onTestFinished(() => void socket.destroy())
    socket.write(connect({ level: 6 }))
    const [answer] = await once(socket, 'data')
    expect(answer.toString('hex')).toBe('20020001')
    expect(broker.connections).toBe(1)
    await until(() => broker.connections === 0)
  })

  it('names the client that it refuses, cut and with escapes', async () => {
    const { broker, lines } = await openBench()
    const client = await openRaw(broker.port)
    client.socket.write(connect({ id: `a\u202e${'\u{1f600}'.repeat(5)}${'x'.repeat(70)}\u0085` }))
    expect(await client.next()).toMatchObject({ cmd: 'connack', returnCode: 2 })
    await client.closed
    const line = lines.find(written => written.includes('"reason":"client_id"')) ?? '{}'
    const shown = `a\\u202e${'\u{1f600}'.repeat(5)}${'x'.repeat(57)}…`
    expect(JSON.parse(line)).toMatchObject({ reason: 'client_id', client: shown })
  })
})

const FILTER = text('devices/press-17/cmd/x')

describe('a packet that breaks a rule', () => {
  it.each<[string, string, Buffer]>([
    ['MQTT-2.3.1-1', 'SUBSCRIBE with the identifier 0', packet(0x82, [0, 0, ...FILTER, 1])],
    ['MQTT-2.3.1-1', 'UNSUBSCRIBE with the identifier 0', packet(0xa2, [0, 0, ...FILTER])],
    ['MQTT-3.8.3-3', 'SUBSCRIBE without a filter', packet(0x82, [0, 7])],
    ['MQTT-3.10.3-2', 'UNSUBSCRIBE without a filter', packet(0xa2, [0, 7])],
    ['MQTT-3.8.1-1', 'SUBSCRIBE with other flags', packet(0x80, [0, 7, ...FILTER, 1])],
    ['MQTT-3.10.1-1', 'UNSUBSCRIBE with other flags', packet(0xa0, [0, 7, ...FILTER])],
    ['MQTT-3.3.1-2', 'DUP with QoS 0', packet(0x38, [...text('devices/press-17/telemetry'), 0x31])],
    ['MQTT-3.3.1-4', 'QoS 3', packet(0x36, [...text('devices/press-17/telemetry'), 0, 7, 0x31])],
    ['3.12', 'PINGREQ with a body', packet(0xc0, [1])],
    ['MQTT-2.2.2-2', 'PINGREQ with flags', packet(0xc1, [])],
    ['3.14', 'DISCONNECT with a body', packet(0xe0, [1])],
    ['MQTT-3.14.1-1', 'DISCONNECT with flags', packet(0xe1, [])],
    ['3.4.1', 'PUBACK of three bytes', packet(0x40, [0, 1, 0])],
    ['3.5.1', 'PUBREC of one byte', packet(0x50, [0])],
    ['3.6.1', 'PUBREL of three bytes', packet(0x62, [0, 1, 0])],
    ['3.7.1', 'PUBCOMP of three bytes', packet(0x70, [0, 1, 0])],
    ['MQTT-2.2.2-2', 'PUBACK with flags', packet(0x42, [0, 1])],
    ['MQTT 3.1.1, 2.2.1', 'CONNACK', packet(0x20, [0, 0])],
    ['MQTT 3.1.1, 2.2.1', 'the reserved type 0', packet(0x00, [])],
    ['MQTT 3.1.1, 2.2.1', 'the reserved type 15', packet(0xf0, [])],
  ])('[%s] closes the connection: %s, whole or byte by byte', async (clause, _what, bytes) => {
    const { broker, ingest, lines } = await openBench()
    const whole = await openClient(broker.port)
    whole.socket.write(bytes)
    await whole.closed
    const cut = await openClient(broker.port, { clientId: 'press-18' })
    for (const byte of bytes) {
      cut.socket.write(Buffer.from([byte]))
      await new Promise(resolve => setImmediate(resolve))
    }
    await cut.closed
    expect([...whole.received, ...cut.received].filter(({ cmd }) => cmd !== 'connack')).toEqual([])
    expect(ingest.offered).toEqual([])
    expect(lines.filter(line => line.includes(clause))).toHaveLength(2)
    expect(lines.find(line => line.includes(clause))).toContain('"client":"press-17"')
  })
})
