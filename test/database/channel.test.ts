/** The channel between the engine's process and its parent: whatever a child writes there, the parent goes on. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { expect, test } from 'vitest'
import { openChannel } from '../../database/embedded/channel.ts'

/** A child that runs this, with a channel. */
function start(script: string) {
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'ignore', 'inherit', 'pipe'] })
  const exited = once(child, 'close')
  return { child, exited, channel: openChannel(child.stdio[3] as Duplex) }
}

const WRITE = "const say = text => require('fs').writeSync(3, text);"
const STAY = 'setInterval(() => {}, 1000);'

test('messages come in their order, however they are cut, and those of before the end', async () => {
  const { channel, exited } = start(`${WRITE} say('{"a":'); setTimeout(() => { say('1}\\n{"b":"ü"}\\n') }, 50)`)
  expect(await channel.next()).toEqual({ a: 1 })
  await exited
  expect(await channel.next()).toEqual({ b: 'ü' })
  expect(await channel.next()).toBe(null)
})

test('what is sent to a child that is gone is no fault', async () => {
  const { channel, exited } = start('')
  await exited
  await channel.send({ a: 1 })
  expect(await channel.next()).toBe(null)
})

test.each([
  ['no JSON', `say('}{\\n')`],
  ['null', `say('null\\n')`],
  ['a number', `say('1\\n')`],
  ['an empty line', `say('\\n')`],
  ['a line without an end', `for (let n = 0; n < 100; n++) say('x'.repeat(1000))`],
  ['messages without an end', `for (let n = 0; n < 10000; n++) say('{"a":"bcdefgh"}\\n')`],
])('%s closes it, and the parent lives', async (_, script) => {
  const { child, channel, exited } = start(`${WRITE} try { ${script} } catch {} ${STAY}`)
  await channel.closed
  for (let heard = await channel.next(); heard !== null; heard = await channel.next()) expect(heard).toHaveProperty('a')
  child.kill('SIGKILL')
  await exited
})

test("words of Node's own channel are messages like others", async () => {
  const { child, channel, exited } = start(
    `${WRITE} say('{"cmd":"NODE_HANDLE_ACK"}\\n{"__proto__":{"x":1}}\\n'); ${STAY}`,
  )
  expect(await channel.next()).toEqual({ cmd: 'NODE_HANDLE_ACK' })
  await channel.next()
  expect(({} as { x?: number }).x).toBe(undefined)
  child.kill('SIGKILL')
  await exited
})
