/**
 * The rules by which a server must close the connection, each with its clause of MQTT 3.1.1, and what a server must not close
 * on. A case is the bytes that a client sends and all that it gets.
 */
import { describe, expect, it } from 'vitest'
import type { Endpoint } from './endpoint.ts'
import { answerTo, openConnected, openRawLine } from './raw-line.ts'
import {
  connectBytes,
  field,
  PINGREQ,
  packetOf,
  publishBytes,
  readingBytes,
  subscribeBytes,
  twoBytes,
  unsubscribeBytes,
} from './wire.ts'

type Case = readonly [title: string, bytes: Buffer, answer: string]

const ILL_FORMED = Buffer.from([0x61, 0xff, 0xfe])
const SURROGATE = Buffer.from([0x61, 0xed, 0xa0, 0x80])

/** With its answer before the end; '' for none. */
const CONNECTS: readonly Case[] = [
  ['a password without a user name [MQTT-3.1.2-22]', connectBytes('no-user', { password: 'x' }), ''],
  ['a will of QoS 3 [MQTT-3.1.2-14]', connectBytes('will-3', { will: willOf('will-3', 3) }), ''],
  ['a QoS of no will [MQTT-3.1.2-13]', connectBytes('no-will', { flags: 0x0a }), ''],
  ['a retained flag of no will [MQTT-3.1.2-15]', connectBytes('no-will', { flags: 0x22 }), ''],
  ['the reserved flag [MQTT-3.1.2-3]', connectBytes('reserved', { flags: 3 }), ''],
  [
    'other flags of the packet [MQTT-2.2.2-2]',
    Buffer.concat([Buffer.from([0x11]), connectBytes('flags').subarray(1)]),
    '',
  ],
  ['an ill-formed client id [MQTT-1.5.3-1]', connectBytes(ILL_FORMED), ''],
  ['a surrogate in the client id [MQTT-1.5.3-1]', connectBytes(SURROGATE), ''],
  ['U+0000 in the client id [MQTT-1.5.3-2]', connectBytes('a\0b'), ''],
  ['an ill-formed user name [MQTT-1.5.3-1]', connectBytes('user', { user: ILL_FORMED }), ''],
  ['U+0000 in the user name [MQTT-1.5.3-2]', connectBytes('user', { user: 'a\0' }), ''],
  ['an ill-formed will topic [MQTT-1.5.3-1]', connectBytes('will', { will: willOf(ILL_FORMED) }), ''],
  ['U+0000 in the will topic [MQTT-1.5.3-2]', connectBytes('will', { will: willOf('a\0') }), ''],
  ['# in the will topic [MQTT-4.7.1-1, MQTT-3.3.2-2]', connectBytes('will', { will: willOf('devices/#') }), ''],
  ['+ in the will topic [MQTT-4.7.1-1, MQTT-3.3.2-2]', connectBytes('will', { will: willOf('devices/+/status') }), ''],
  ['another protocol name [MQTT-3.1.2-1]', connectBytes('name', { name: 'MQTX' }), ''],
  ['protocol level 6 [MQTT-3.1.2-2]', connectBytes('level', { level: 6 }), '20020001'],
  ['protocol level 3 under the name of 3.1.1 [MQTT-3.1.2-2]', connectBytes('level', { level: 3 }), '20020001'],
  ['MQTT 5, in the form of MQTT 5 [MQTT 5, 3.2.2.2]', connectBytes('five', { level: 5 }), '2003008400'],
  ['an empty client id that is to be kept [MQTT-3.1.3-8]', connectBytes('', { isClean: false }), '20020002'],
  ['a PUBLISH before the CONNECT [MQTT-3.1.0-1]', readingBytes('early', 1), ''],
  ['a PINGREQ before the CONNECT [MQTT-3.1.0-1]', PINGREQ, ''],
]

/** On a line that has its CONNACK. */
const PACKETS: readonly Case[] = [
  ['a second CONNECT [MQTT-3.1.0-2]', connectBytes('twice'), 'closed'],
  ['QoS 3 [MQTT-3.3.1-4]', readingBytes('odd', 1, { qos: 3 }), 'closed'],
  ['DUP with QoS 0 [MQTT-3.3.1-2]', readingBytes('odd', 1, { qos: 0, isAgain: true }), 'closed'],
  ['packet identifier 0 of a PUBLISH [MQTT-2.3.1-1]', readingBytes('odd', 1, { id: 0 }), 'closed'],
  ['packet identifier 0 of a SUBSCRIBE [MQTT-2.3.1-1]', subscribeBytes(0, ['devices/odd/cmd/x']), 'closed'],
  ['packet identifier 0 of an UNSUBSCRIBE [MQTT-2.3.1-1]', unsubscribeBytes(0, ['devices/odd/cmd/x']), 'closed'],
  ['a SUBSCRIBE without a filter [MQTT-3.8.3-3]', subscribeBytes(1, []), 'closed'],
  ['a SUBSCRIBE of QoS 3 [MQTT-3-8.3-4]', subscribeBytes(1, ['devices/odd/cmd/x'], { qos: 3 }), 'closed'],
  ['other flags of a SUBSCRIBE [MQTT-3.8.1-1]', subscribeBytes(1, ['devices/odd/cmd/x'], { first: 0x80 }), 'closed'],
  ['an UNSUBSCRIBE without a filter [MQTT-3.10.3-2]', unsubscribeBytes(7, []), 'closed'],
  ['other flags of an UNSUBSCRIBE [MQTT-3.10.1-1]', packetOf(0xa0, twoBytes(7), field('x')), 'closed'],
  ['other flags of a PINGREQ [MQTT-2.2.2-2]', packetOf(0xc1), 'closed'],
  ['a PINGREQ with a body [3.12.1]', packetOf(0xc0, Buffer.from('x')), 'closed'],
  ['other flags of a DISCONNECT [MQTT-3.14.1-1]', packetOf(0xe1), 'closed'],
  ['a DISCONNECT with a body [3.14.1]', packetOf(0xe0, Buffer.from('x')), 'closed'],
  ['a PUBACK of three bytes [3.4.1]', packetOf(0x40, Buffer.from([0, 1, 0])), 'closed'],
  ['a PUBREC of three bytes [3.5.1]', packetOf(0x50, Buffer.from([0, 1, 0])), 'closed'],
  ['a PUBREL of three bytes [3.6.1]', packetOf(0x62, Buffer.from([0, 1, 0])), 'closed'],
  ['a PUBCOMP of three bytes [3.7.1]', packetOf(0x70, Buffer.from([0, 1, 0])), 'closed'],
  ['other flags of a PUBREL [MQTT-3.6.1-1]', packetOf(0x60, twoBytes(99)), 'closed'],
  ['other flags of a PUBACK [MQTT-2.2.2-2]', packetOf(0x41, twoBytes(99)), 'closed'],
  ['type 0 [table 2.1]', packetOf(0), 'closed'],
  ['type 15 [table 2.1]', packetOf(0xf0), 'closed'],
  ["a CONNACK, which is the server's [table 2.1]", packetOf(0x20, twoBytes(0)), 'closed'],
  ["a SUBACK, which is the server's [table 2.1]", packetOf(0x90, twoBytes(1), Buffer.from([0])), 'closed'],
  ['a length of five bytes [2.2.3]', Buffer.from('32ffffffff7f', 'hex'), 'closed'],
  ['a topic longer than its packet', packetOf(0x32, twoBytes(32), Buffer.from('abc')), 'closed'],
  ['a PUBLISH that ends before its packet identifier', packetOf(0x32, field('devices/odd/telemetry')), 'closed'],
]

/** A server may be strict here as well; these stay, so that a device does not send the same message for ever. */
const KEPT: readonly Case[] = [
  ['a topic of ill-formed UTF-8: kept', publishBytes(ILL_FORMED, '1'), '40020001'],
  ['a topic with U+0000: kept', publishBytes('devices/odd/telemetry\0', '1'), '40020001'],
  ['an empty payload: kept', publishBytes('devices/odd/telemetry', ''), '40020001'],
  ['a topic of 65,535 bytes: kept', publishBytes('a'.repeat(65_535), '1'), '40020001'],
  ['a device id of 257 characters: kept', publishBytes(`devices/${'d'.repeat(257)}/telemetry`, '1'), '40020001'],
  ['a retained reading', readingBytes('odd', 1, { isRetained: true }), '40020001'],
  ['a PUBACK of nothing', packetOf(0x40, twoBytes(9)), 'nothing'],
  ['an UNSUBSCRIBE of what never was [MQTT-3.10.4-5]', unsubscribeBytes(7, ['never/was']), 'b0020007'],
  ['a PUBREL of nothing', packetOf(0x62, twoBytes(99)), '70020063'],
]

export function describeMustClose(endpoint: () => Endpoint): void {
  describe('must-close rules', () => {
    it.each(CONNECTS)('a connection ends at %s', async (_title, bytes, answer) => {
      const line = await openRawLine(endpoint().mqttPort)
      line.send(bytes)
      const [first = ''] = await line.atLeast(1)
      expect(first).toBe(answer)
      await line.ended()
    })

    it.each(PACKETS)('a connection ends at %s', async (_title, bytes, answer) => {
      expect(await answerTo(await openConnected(endpoint().mqttPort, 'odd-must-close'), bytes)).toBe(answer)
    })

    it.each(PACKETS)('a connection that has published ends at %s', async (_title, bytes, answer) => {
      const line = await openConnected(endpoint().mqttPort, 'odd-must-close')
      expect(await answerTo(line, readingBytes('odd', 1, { id: 9 }))).toMatch(/^40020009$|^nothing$/)
      await line.atLeast(3)
      expect((await answerTo(line, bytes)).replace('40020009 ', '')).toBe(answer)
    })

    it.each(KEPT)('a connection stays at %s', async (_title, bytes, answer) => {
      const line = await openConnected(endpoint().mqttPort, 'odd-must-stay')
      line.send(bytes)
      if (answer !== 'nothing') expect((await line.atLeast(2)).slice(1)).toEqual([answer])
      expect(await answerTo(line)).toBe('nothing')
      await line.close()
    })

    it('a filter that is ill-formed is refused, or ends the connection [MQTT-4.7.1-2]', async () => {
      const line = await openConnected(endpoint().mqttPort, 'odd-filter')
      expect(await answerTo(line, subscribeBytes(5, ['devices/odd-filter/cmd/#/b']))).toMatch(/^(9003000580|closed)$/)
      await line.close()
    })
  })
}

function willOf(topicOrDevice: string | Buffer, qos = 1): { topic: string | Buffer; payload: string; qos: number } {
  const isDevice = typeof topicOrDevice === 'string' && /^[\w-]+$/.test(topicOrDevice)
  return { topic: isDevice ? `devices/${topicOrDevice}/status` : topicOrDevice, payload: 'offline', qos }
}
