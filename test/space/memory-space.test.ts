/** The space in memory: the contract, and what is its own: memory, watching, strangers. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import type { Message } from '../../model/message.ts'
import { openMemorySpace } from '../../space/memory-space.ts'
import { spaceContract } from '../contracts/space-contract.ts'

spaceContract('memory-space', async options => openMemorySpace(options), { runs: 500 })

test('a device with five metrics takes at most 350 bytes, and cut texts do not keep what they were cut from', async () => {
  const program = new URL('../../dist/test/space/measure-memory.js', import.meta.url)
  const child = fork(program, { execArgv: ['--expose-gc'] })
  const [measured] = (await once(child, 'message')) as [{ bytesPerDevice: number; bytesPerCutText: number }]
  expect(measured.bytesPerDevice).toBeLessThan(350)
  expect(measured.bytesPerDevice).toBeGreaterThan(100)
  // Each was cut from a text of 4 kB; what the tables take for so few devices is in it too.
  expect(measured.bytesPerCutText).toBeLessThan(1500)
  expect(measured.bytesPerCutText).toBeGreaterThan(100)
})

test('a repetition, or a late reading that changes nothing, is no change that a watcher is told', async () => {
  const space = openMemorySpace({ devicesMax: 10 })
  await space.merge([reading('a', 1000, 1), reading('b', 1000, 1)])
  const told = new Promise<readonly string[]>(resolve => space.watch(1, resolve))
  await space.merge([reading('a', 1000, 1), reading('a', 900, 5), reading('b', 1001, 1)])
  expect(await told).toEqual(['b'])
  await space.close()
})

test('of devices that only connect, those that did so last are remembered', async () => {
  const space = openMemorySpace({ devicesMax: 10 })
  const strangers = Array.from({ length: 100_000 }, (_, at) => ({ device: `s${at}`, online: true, at: 1000 }))
  await space.mergePresence(strangers)
  await space.mergePresence([
    { device: 's0', online: true, at: 1001 },
    { device: 'one more', online: true, at: 1000 },
  ])
  await space.merge(['s0', 's1', 's2', 'one more'].map(device => reading(device, 1000, 1)))
  const online = (await space.getMany(['s0', 's1', 's2', 'one more'])).map(state => state.online)
  expect(online).toEqual([true, false, true, true])
  await space.close()
})

test('a search over many devices lets other work have its turn', async () => {
  const space = openMemorySpace({ devicesMax: 100_000 })
  await space.merge(Array.from({ length: 100_000 }, (_, at) => reading(`device-${at}`, 1000, at)))
  let turns = 0
  let searching = true
  const turn = () => {
    turns++
    if (searching) setImmediate(turn)
  }
  setImmediate(turn)
  const found = await space.page({ after: null, limit: 10, search: '-99999', online: null })
  searching = false
  expect(found.map(({ device }) => device)).toEqual(['device-99999'])
  expect(turns).toBeGreaterThanOrEqual(4)
  await space.close()
})

function reading(device: string, receivedAt: number, value: number): Message {
  return { device, receivedAt, readings: [{ metric: 'm', ts: 900, receivedAt, value, sentTs: 900 }] }
}
