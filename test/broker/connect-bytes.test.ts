/** A CONNECT while it comes: the same packet whatever the cuts, and a sum of memory that large ones share. */
import fc from 'fast-check'
import * as mqtt from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { ConnectBytes } from '../../broker/connect-bytes.ts'
import { LIMITS } from '../../model/limits.ts'
import { connectPacket, openBench, openRaw } from './harness.ts'

function connectOf(bytes: number): Buffer {
  const overhead = mqtt.generate(connectPacket({ username: 'u', password: Buffer.alloc(20_000) })).length - 20_000
  return mqtt.generate(connectPacket({ username: 'u', password: Buffer.alloc(bytes - overhead) }))
}

describe('the bytes of a CONNECT', () => {
  it('are put together however they are cut, and what follows is left', () => {
    const memory = { bytes: 0 }
    const packets = fc.record({
      bytes: fc.integer({ min: 20_000, max: 60_000 }),
      cuts: fc.array(fc.nat(60_000), { maxLength: 9 }),
    })
    fc.assert(
      fc.property(packets, ({ bytes, cuts }) => {
        const packet = connectOf(bytes)
        const stream = Buffer.concat([packet, Buffer.from('next')])
        const places = [...new Set([...cuts.filter(cut => cut > 0 && cut < packet.length), stream.length])].sort(
          (a, b) => a - b,
        )
        const connect = new ConnectBytes(memory)
        const came = places.map((place, i) => connect.take(stream.subarray(places[i - 1] ?? 0, place)))
        expect(came.slice(0, -1).every(({ kind }) => kind === 'more')).toBe(true)
        expect(came.at(-1)).toEqual({ kind: 'whole', packet, rest: Buffer.from('next') })
        expect(memory.bytes).toBe(0)
      }),
      { numRuns: 50 },
    )
  })

  it('[G5] share a sum of memory: beyond it large ones are refused, small ones are not, and all is given back', () => {
    const memory = { bytes: 0 }
    const large = connectOf(60_000).subarray(0, -1)
    const small = connectOf(8_192).subarray(0, -1)
    const waiting: ConnectBytes[] = []
    for (;;) {
      const connect = new ConnectBytes(memory)
      const came = connect.take(large)
      if (came.kind === 'fault') {
        expect(came.fault).toBe('connect_memory')
        break
      }
      waiting.push(connect)
      expect(memory.bytes).toBeLessThanOrEqual(LIMITS.connectsBytesMax)
    }
    expect(waiting.length).toBeGreaterThan(600)
    const others = Array.from({ length: 1_000 }, () => new ConnectBytes(memory))
    expect(others.every(connect => connect.take(small).kind === 'more')).toBe(true)
    for (const connect of [...waiting, ...others]) connect.drop()
    expect(memory.bytes).toBe(0)
    expect(new ConnectBytes(memory).take(large).kind).toBe('more')
  })

  it('[G5] up to 8 KiB ask for no memory of all, however they are cut', () => {
    const packet = connectOf(8_192)
    for (const cut of [1, 4_097, 5_000, 8_000]) {
      const connect = new ConnectBytes({ bytes: LIMITS.connectsBytesMax })
      expect(connect.take(packet.subarray(0, cut)).kind).toBe('more')
      expect(connect.take(packet.subarray(cut, cut + 100)).kind).toBe('more')
      expect(connect.take(packet.subarray(cut + 100))).toEqual({ kind: 'whole', packet, rest: null })
    }
  })

  it('cost no more than what came, and not what a header claims', () => {
    const memory = { bytes: 0 }
    const connect = new ConnectBytes(memory)
    for (const byte of connectOf(65_536).subarray(0, 5_000)) connect.take(Buffer.from([byte]))
    expect(memory.bytes).toBe(0)
  })

  it('of a socket that closed give their memory back', async () => {
    const { broker } = await openBench()
    // Each takes 52 KB beyond its own part; a thousand at once would be refused.
    for (let round = 0; round < 10; round++) {
      const clients = await Promise.all(Array.from({ length: 100 }, () => openRaw(broker.port)))
      for (const { socket } of clients) socket.write(connectOf(60_000).subarray(0, -1))
      await Promise.all(clients.map(({ socket }) => new Promise(resolve => void socket.write('', resolve))))
      await Promise.all(clients.map(client => client.close()))
    }
    const client = await openRaw(broker.port)
    const bytes = connectOf(60_000)
    client.socket.write(bytes.subarray(0, 30_000))
    client.socket.write(bytes.subarray(30_000))
    expect(await client.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
  })
})
