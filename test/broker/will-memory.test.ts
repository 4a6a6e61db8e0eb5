/** What wills keep while their connections are open: a sum that large ones share, and nothing of the rest of the CONNECT. */
import { Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { Connection } from '../../broker/connection.ts'
import { openWillMemory } from '../../broker/will-memory.ts'
import { LIMITS } from '../../model/limits.ts'
import { until } from '../waits.ts'
import { connectPacket, openBench, openRaw, ping, type RawClient } from './harness.ts'

const willOf = (bytes: number) =>
  ({ topic: 'devices/a/telemetry', payload: Buffer.alloc(bytes, 'x'), qos: 1, retain: false }) as const

describe('the wills of all connections', () => {
  it('[G5] share a sum beyond 8 KiB each: small ones always pass, and what has ended gives back', () => {
    const wills = openWillMemory(100_000)
    const large = [new Connection(new Socket()), new Connection(new Socket()), new Connection(new Socket())]
    expect(large.map(connection => wills.keep(connection, willOf(50_000)))).toEqual([true, true, false])
    for (let i = 0; i < 100; i++) expect(wills.keep(new Connection(new Socket()), willOf(8_000))).toBe(true)
    for (const connection of large) wills.ended(connection)
    for (const connection of large) wills.ended(connection)
    expect(large.map(connection => wills.keep(connection, willOf(50_000)))).toEqual([true, true, false])
  })

  it('count a topic as well as a payload', () => {
    const wills = openWillMemory(50_000)
    const connection = new Connection(new Socket())
    expect(wills.keep(connection, { ...willOf(10), topic: 't'.repeat(60_000) })).toBe(false)
  })

  it('keep nothing else of the CONNECT', () => {
    const packet = Buffer.alloc(60_000)
    const will = { ...willOf(0), payload: packet.subarray(100, 107) }
    openWillMemory().keep(new Connection(new Socket()), will)
    expect(will.payload.equals(packet.subarray(100, 107))).toBe(true)
    expect(will.payload.buffer).not.toBe(packet.buffer)
  })

  it('[G5] that are too much are refused with return code 3, and there is room again when others have ended', async () => {
    const { broker } = await openBench()
    const will = willOf(60_000)
    const fit = Math.floor(LIMITS.willsBytesMax / (60_000 - 8 * 1024))
    const clients: RawClient[] = []
    const codes: unknown[] = []
    while (codes.length < fit + 100) {
      const batch = await Promise.all(Array.from({ length: 100 }, () => openRaw(broker.port)))
      for (const client of batch) client.send(connectPacket({ clientId: `c${clients.push(client)}`, will }))
      const answers = await Promise.all(batch.map(client => client.next()))
      codes.push(...answers.map(answer => answer?.cmd === 'connack' && answer.returnCode))
    }
    expect(new Set(codes)).toEqual(new Set([0, 3]))
    expect(codes.filter(code => code === 0).length).toBeLessThanOrEqual(fit)
    await until(() => broker.connections <= fit)
    const small = await openRaw(broker.port)
    small.send(connectPacket({ clientId: 'small', will: willOf(8_000) }))
    expect(await small.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
    await ping(small)
    for (const client of clients) await client.close()
    await until(() => broker.connections === 1)
    const next = await openRaw(broker.port)
    next.send(connectPacket({ clientId: 'next', will }))
    expect(await next.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
  })
})

describe('a connection', () => {
  it('[G5] keeps no password, nor the bytes of its CONNECT', async () => {
    const { broker } = await openBench()
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const kept = () => {
      collect()
      return process.memoryUsage().arrayBuffers
    }
    const password = Buffer.alloc(60_000, 'x')
    const before = kept()
    for (let i = 0; i < 200; i++) {
      const client = await openRaw(broker.port)
      client.send(connectPacket({ clientId: `c${i}`, username: 'u', password }))
      await ping(client)
    }
    expect(broker.connections).toBe(200)
    await until(() => kept() - before < 100 * password.length)
  })
})
