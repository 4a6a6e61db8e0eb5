import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { openBareBroker } from '../../bench/bare-broker.ts'
import { commandWithOptions, conflictOf, type SimulateOptions } from '../../simulate/options.ts'
import { runSimulate } from '../../simulate/simulate.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

/** Cuts all connections once, when it has received `cutAt` messages. */
async function openNotingBroker(cutAt = 0) {
  const received: { topic: string; payload: string; qos: number }[] = []
  const broker = await openBareBroker(0, {
    authorizePublish(_client, packet, done) {
      received.push({ topic: packet.topic, payload: packet.payload.toString(), qos: packet.qos })
      if (received.length === cutAt) setImmediate(broker.cut)
      done(null)
    },
  })
  cleanups.push(broker.close)
  return { ...broker, received, url: `mqtt://127.0.0.1:${broker.port}` }
}

function optionsOf(...args: string[]): SimulateOptions {
  const command = commandWithOptions()
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
  return command.parse(['--json', ...args], { from: 'user' }).opts()
}

const never = new AbortController().signal

test.each([0, 1, 2])('a steady run publishes every message once at QoS %i', async qos => {
  const broker = await openNotingBroker()
  const options = optionsOf(
    '--url',
    broker.url,
    '--devices',
    '5',
    '--rate',
    '500',
    '--seconds',
    '0.4',
    '--qos',
    `${qos}`,
    '--seed',
    '9',
  )
  const result = await runSimulate(options, never)
  expect(result).toMatchObject({
    sent: 200,
    acked: qos === 0 ? 0 : 200,
    reconnects: 0,
    seed: 9,
    devices: 5,
    verify: null,
  })
  expect(result.seconds).toBeGreaterThan(0.35)
  expect(result.ack_ms === null).toBe(qos === 0)
  await expect.poll(() => broker.received.length).toBe(200)
  const counters = broker.received.map(message => JSON.parse(message.payload).values.counter)
  expect(new Set(counters).size).toBe(200)
  expect(new Set(broker.received.map(message => message.topic)).size).toBe(5)
  expect(new Set(broker.received.map(message => message.qos))).toEqual(new Set([qos]))
})

test('a cut of all connections loses nothing: mqtt.js sends again what was not acknowledged', async () => {
  const broker = await openNotingBroker(101)
  const options = optionsOf('--url', broker.url, '--devices', '5', '--rate', '500', '--seconds', '1.2')
  const result = await runSimulate(options, never)
  expect(result).toMatchObject({ sent: 600, acked: 600, reconnects: 5 })
  expect(result.ack_ms?.max).toBeGreaterThan(300)
  expect(new Set(broker.received.map(message => message.payload)).size).toBe(600)
})

test('a spike tells the latencies of its phases apart', async () => {
  const broker = await openNotingBroker()
  const options = optionsOf(
    '--url',
    broker.url,
    '--scenario',
    'spike',
    '--rate',
    '1000',
    '--seconds',
    '0.6',
    '--devices',
    '10',
  )
  const { phases } = await runSimulate(options, never)
  expect(phases.map(({ phase, acked }) => [phase, acked])).toEqual([
    ['before', 20],
    ['spike', 200],
    ['after', 20],
  ])
})

test('a replay publishes every row of every file as it stands, each file in its order', async () => {
  const broker = await openNotingBroker()
  const dir = await mkdtemp(join(tmpdir(), 'simulate-'))
  cleanups.push(() => rm(dir, { recursive: true }))
  const rows = Array.from({ length: 500 }, (_, n) => [1_400_000_000_000 + n * 1_000, `${n}.50`] as const)
  const lines = rows.map(([time, value]) => `${new Date(time).toISOString().slice(0, 19).replace('T', ' ')},${value}`)
  await writeFile(join(dir, 'pump-a.csv'), `timestamp,value\n${lines.join('\n')}\n`)
  await writeFile(join(dir, 'pump-b.csv'), `timestamp,value\n${lines.slice(0, 10).join('\n')}\n`)
  const options = optionsOf('--url', broker.url, '--replay', join(dir, 'pump-a.csv'), join(dir, 'pump-b.csv'))
  expect(await runSimulate(options, never)).toMatchObject({ scenario: 'replay', sent: 510, acked: 510, devices: 2 })
  const payloads = broker.received
    .filter(({ topic }) => topic === 'devices/pump-a/telemetry')
    .map(({ payload }) => payload)
  expect(payloads).toEqual(rows.map(([time, value]) => `{"ts":${time},"values":{"value":${value}}}`))
})

test('an interrupted run sends nothing new, and tells what was acknowledged', async () => {
  const broker = await openNotingBroker()
  const interrupt = new AbortController()
  const running = runSimulate(
    optionsOf('--url', broker.url, '--rate', '100', '--seconds', '600', '--devices', '2'),
    interrupt.signal,
  )
  await expect.poll(() => broker.received.length).toBeGreaterThan(3)
  interrupt.abort()
  const { sent, acked } = await running
  expect(acked).toBe(sent)
  expect(sent).toBeLessThan(1_000)
})

test('a page where ClickHouse should answer is told in one short line', async () => {
  const page = `<html>\n${'<p>Not here.</p>\n'.repeat(1_000)}</html>`
  const server = createServer((_, response) => response.writeHead(404).end(page)).listen(0, '127.0.0.1')
  cleanups.push(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const options = optionsOf('--verify', '--sql', `http://127.0.0.1:${port}`)
  const error = (await runSimulate(options, never).catch((error: unknown) => error)) as Error
  expect(error.message).toMatch(/^ClickHouse does not answer at http:\/\/127\.0\.0\.1:\d+ \(.{1,400}\)\.$/)
})

test('a broker that does not answer is told in a sentence', async () => {
  const broker = await openBareBroker(0)
  await broker.close()
  const running = runSimulate(optionsOf('--url', `mqtt://127.0.0.1:${broker.port}`, '--devices', '3'), never)
  await expect(running).rejects.toThrow(/No MQTT broker takes connections at .*Is surgetank running\?/)
})

test.each([
  [['--devices', '0'], 'It takes a whole number from 1'],
  [['--devices', 'ten'], 'It takes a whole number from 1'],
  [['--rate', '-1'], 'It takes a number from 0.1'],
  [['--qos', '3'], 'It takes 0, 1 or 2'],
  [['--scenario', 'storm'], 'Allowed choices are steady, spike, hot-key, toggle'],
  [['--url', 'http://x'], 'It takes a URL that begins with mqtt:// or mqtts://'],
  [['--sql', 'nowhere'], 'It takes a URL that begins with http:// or https://'],
  [['--storm'], "unknown option '--storm'"],
])('%j is refused with a sentence', (args, sentence) => {
  expect(() => optionsOf(...args)).toThrow(sentence)
})

test('options that are in range but do not go together are refused', () => {
  expect(conflictOf(optionsOf('--rate', '1000000', '--seconds', '600'))).toContain('a run takes up to 50000000')
  expect(conflictOf(optionsOf('--replay', 'a.csv', 'a.csv'))).toContain('twice')
  expect(conflictOf(optionsOf())).toBeNull()
})
