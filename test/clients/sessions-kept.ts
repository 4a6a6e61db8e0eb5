/** Sessions of clean=0 clients and open QoS 2 messages, over reconnects and over SIGKILL of what serves them. */
import { describe, expect, it } from 'vitest'
import type { Endpoint } from './endpoint.ts'
import { ask, openConnected, openRawLine, type RawLine } from './raw-line.ts'
import { connectBytes, pubrelBytes, readingBytes, subscribeBytes, unsubscribeBytes } from './wire.ts'

const [NEW, PRESENT] = ['20020000', '20020100']

export function describeSessions(endpoint: () => Endpoint): void {
  const open = (id: string, isClean: boolean) => openConnected(endpoint().mqttPort, id, { isClean })
  const connackOf = ({ packets }: RawLine) => packets[0]
  const count = async (device: string) => (await endpoint().readings(device)).length
  const ways = [
    ['a reconnect', async () => undefined],
    ['SIGKILL of what serves it', () => endpoint().killAndRestart()],
  ] as const

  describe.each(ways)('a session over %s', (way, happens) => {
    const id = way.replaceAll(' ', '-')

    it('is present for a client that wants it kept, and not for one that wants a clean one [MQTT-3.2.2-2]', async () => {
      const first = await open(`kept-${id}`, false)
      expect(connackOf(first)).toBe(NEW)
      first.reset()
      await happens()
      const second = await open(`kept-${id}`, false)
      expect(connackOf(second)).toBe(PRESENT)
      await second.close()
      const clean = await open(`kept-${id}`, true)
      expect(connackOf(clean)).toBe(NEW)
      await clean.close()
      const third = await open(`kept-${id}`, false)
      expect(connackOf(third)).toBe(NEW)
      await third.close()
    })

    it('keeps its filters: what was granted before SUBACK counts in the bound of ten', async () => {
      const filters = (from: number, to: number) =>
        Array.from({ length: to - from }, (_, n) => `devices/filters-${id}/cmd/${from + n}`)
      const first = await open(`filters-${id}`, false)
      expect(await ask(first, 1, subscribeBytes(5, filters(0, 8)))).toBe(`900a0005${'01'.repeat(8)}`)
      first.reset()
      await happens()
      const second = await open(`filters-${id}`, false)
      expect(connackOf(second)).toBe(PRESENT)
      expect(await ask(second, 1, subscribeBytes(6, filters(8, 11)))).toBe('90050006010180')
      expect(await ask(second, 1, unsubscribeBytes(7, filters(0, 1)))).toBe('b0020007')
      expect(await ask(second, 1, subscribeBytes(8, filters(10, 11)))).toBe('9003000801')
      await second.close()
    })

    it('a QoS 2 message that is sent again before its PUBREL is stored once [MQTT-4.3.3-2]', async () => {
      const device = `twice-${id}`
      const first = await open(device, false)
      first.send(readingBytes(device, 1, { qos: 2, id: 5 }))
      expect((await first.atLeast(2))[1]).toBe('50020005')
      first.reset()
      await happens()
      const second = await open(device, false)
      second.send(readingBytes(device, 1, { qos: 2, id: 5, isAgain: true }))
      expect((await second.atLeast(2))[1]).toBe('50020005')
      expect(await ask(second, 1, pubrelBytes(5))).toBe('70020005')
      expect(await count(device)).toBe(1)
      await second.close()
    })

    it('a QoS 2 message after the PUBREL of an equal one is another message', async () => {
      const device = `anew-${id}`
      const first = await open(device, false)
      first.send(readingBytes(device, 1, { qos: 2, id: 5 }))
      await first.atLeast(2)
      expect(await ask(first, 1, pubrelBytes(5))).toBe('70020005')
      first.reset()
      await happens()
      const second = await open(device, false)
      second.send(readingBytes(device, 1, { qos: 2, id: 5 }))
      expect((await second.atLeast(2))[1]).toBe('50020005')
      expect(await ask(second, 1, pubrelBytes(5))).toBe('70020005')
      expect(await count(device)).toBe(2)
      await second.close()
    })
  })

  it('a PUBREL that is sent again gets its PUBCOMP again, also on another connection', async () => {
    const line = await open('released', false)
    line.send(readingBytes('released', 1, { qos: 2, id: 5 }))
    await line.atLeast(2)
    expect(await ask(line, 2, pubrelBytes(5), pubrelBytes(5))).toBe('70020005 70020005')
    await line.close()
    const next = await open('released', false)
    expect(await ask(next, 1, pubrelBytes(5))).toBe('70020005')
    await next.close()
  })

  it.each([true, false])(
    'on one connection a QoS 2 message that is sent again is stored once, clean: %s',
    async isClean => {
      const device = `one-line-${isClean}`
      const line = await open(device, isClean)
      line.send(readingBytes(device, 1, { qos: 2, id: 5 }), readingBytes(device, 1, { qos: 2, id: 5, isAgain: true }))
      expect((await line.atLeast(3)).slice(1)).toEqual(['50020005', '50020005'])
      expect(await ask(line, 1, pubrelBytes(5))).toBe('70020005')
      expect(await count(device)).toBe(1)
      await line.close()
    },
  )

  it('another message under an open identifier is stored: nothing is lost for it', async () => {
    const line = await open('reused', false)
    line.send(readingBytes('reused', 1, { qos: 2, id: 5 }), readingBytes('reused', 2, { qos: 2, id: 5 }))
    expect((await line.atLeast(3)).slice(1)).toEqual(['50020005', '50020005'])
    expect(await count('reused')).toBe(2)
    await line.close()
  })

  it('who takes an id over gets the session, and the one before gets what it is owed', async () => {
    const first = await open('taken-over', false)
    first.send(readingBytes('taken-over', 1, { id: 1 }))
    const second = await open('taken-over', false)
    expect(connackOf(second)).toBe(PRESENT)
    expect((await first.ended()).slice(1)).toEqual(['40020001'])
    await second.close()
  })

  it('80 clients that come and go at once each find their session', async () => {
    const ids = Array.from({ length: 80 }, (_, n) => `many-${n}`)
    for (const expected of [NEW, PRESENT]) {
      const lines = await Promise.all(
        ids.map(async id => {
          const line = await openRawLine(endpoint().mqttPort)
          line.send(connectBytes(id, { isClean: false }))
          await line.atLeast(1)
          return line
        }),
      )
      expect([...new Set(lines.map(connackOf))]).toEqual([expected])
      await Promise.all(lines.map(line => line.close()))
    }
  })
}
