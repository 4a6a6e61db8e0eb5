/**
 * Proves the harness beside another broker: through the same poor lines mosquitto, which keeps sessions, gets every message
 * of every client once; and when the line tells clients that it kept none, a strict client gives up what was under way.
 */
import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildClientPrograms, type ClientPrograms, clientProgramsHere } from '../servers/client-programs.ts'
import { type MosquittoProcess, mosquittoHere } from '../servers/mosquitto-process.ts'
import { startMosquitto } from '../servers/mosquitto-server.ts'
import { until } from '../waits.ts'
import { type Behind, isWell, publishOverPoorLines } from './poor-lines.ts'
import { exactPublishings, type Publishing } from './publishing-clients.ts'

const MESSAGES = 300

describe.skipIf(!clientProgramsHere || !mosquittoHere)('the harness of real clients, beside mosquitto', () => {
  let programs: ClientPrograms
  let mosquitto: MosquittoProcess
  let behind: Behind
  let leave: () => Promise<void>
  beforeAll(async () => {
    programs = buildClientPrograms()
    mosquitto = await startMosquitto()
    const listening = await openListener(mosquitto.port)
    behind = listening.behind
    leave = listening.leave
  })
  afterAll(async () => {
    await leave()
    await mosquitto.stop()
    programs.remove()
  })

  it('finds nothing lost and nothing doubled', async () => {
    const publishings = exactPublishings(MESSAGES)
    const outcomes = await publishOverPoorLines(behind, programs, publishings, { seed: 1, kills: [] })
    expect(outcomes.filter(outcome => !isWell(outcome))).toEqual([])
    for (const { faults } of outcomes) expect(faults).toBeGreaterThan(1)
  })

  it('finds what a strict client gives up when it is told "no session"', async () => {
    const denied: Publishing = { client: 'HiveMQ (Java)', qos: 1, hasTs: true, device: 'denied', messages: MESSAGES }
    const [outcome] = await publishOverPoorLines(behind, programs, [denied], {
      seed: 1,
      kills: [],
      deniesSessions: true,
    })
    expect(outcome?.lost).toBeGreaterThan(0)
    expect(outcome?.lostAcked).toBe(0)
  })
})

/** Subscribes to everything and notes it. Without a table behind it, what has a `ts` may arrive twice. */
async function openListener(port: number): Promise<{ behind: Behind; leave: () => Promise<void> }> {
  const numbers = new Map<string, number[]>()
  const ended = new Set<string>()
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { clientId: 'listener' })
  client.on('message', (topic, payload) => {
    const [, device = '', kind] = topic.split('/')
    if (kind === 'end') return void ended.add(device)
    const { n, values } = JSON.parse(payload.toString()) as { n?: number; values?: { n: number } }
    const list = numbers.get(device) ?? []
    numbers.set(device, list)
    list.push(values?.n ?? n ?? -1)
  })
  await client.subscribeAsync('devices/#', { qos: 2 })
  return {
    leave: () => client.endAsync(),
    behind: {
      mqttPort: port,
      killAndRestart: async () => {
        throw new Error('What mosquitto holds does not outlive it here.')
      },
      arrived: async ({ device, hasTs }) => {
        await client.publishAsync(`devices/${device}/end`, '', { qos: 2 })
        await until(() => ended.has(device), 'all has arrived')
        const list = numbers.get(device) ?? []
        return hasTs ? [...new Set(list)] : list
      },
    },
  }
}
