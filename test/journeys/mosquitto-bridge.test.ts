/**
 * A stock Mosquitto bridge: what devices publish there arrives here, through a restart of either side under load, once each. Its
 * default notification goes to `$SYS/broker/connection/...`, for which it must not be closed.
 *
 * Readings carry a time. Without one, what the bridge had sent and had no PUBACK for when a line was cut, at most the 20 messages
 * of its window, is stored a second time.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Fleet, openFleet } from '../../bench/generator.ts'
import { check, type FleetJournal, holds, openJournal } from '../crash/checker.ts'
import { freePorts, type RunningSystem, type SystemOptions, startSystem } from '../crash/system.ts'
import { type MosquittoBridge, mosquittoHere, startBridge } from '../servers/mosquitto-bridge.ts'
import { until } from '../waits.ts'

const DEVICES = 10
/** A bridge queues a thousand messages by default, and drops what is beyond: those of half a minute. */
const RATE = 30
const MORE = 60

describe.skipIf(!mosquittoHere)('a stock bridge of mosquitto', () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-bridged-'))
  let system: SystemOptions
  let running: RunningSystem
  let bridge: MosquittoBridge
  let fleet: Fleet
  let journal: FleetJournal

  beforeAll(async () => {
    system = { dataDir, ports: await freePorts() }
    running = await startSystem(system)
    bridge = await startBridge(system.ports.mqtt)
    journal = openJournal()
    const devices = Array.from({ length: DEVICES }, (_, n) => `bridged-${n}`)
    fleet = await openFleet({ port: bridge.port, devices, connections: DEVICES, window: 10, rate: RATE, journal })
    fleet.start()
  })

  afterAll(async () => {
    fleet?.close()
    await bridge?.stop()
    await running?.killTree()
    rmSync(dataDir, { recursive: true, force: true })
  })

  it('stays connected, and its notifications are acknowledged, let go and counted by name', async () => {
    await until(async () => (await letGo('reserved_sys')) >= 1, 'the notification is counted')
    await untilStored(MORE)
    expect(running.output()).not.toContain('connection refused')
    expect(bridge.output().match(/Received CONNACK on connection/g)).toHaveLength(1)
  })

  it('brings everything once when Surgetank is killed, when it is stopped, and when mosquitto is', async () => {
    await running.killTree()
    running = await startSystem(system)
    await untilStored(MORE)
    await running.stop()
    running = await startSystem(system)
    await untilStored(MORE)
    await bridge.restart()
    await untilStored(MORE)
    expect(await fleet.drain(60_000)).toBe(true)
    // What mosquitto has acknowledged may still be on its way.
    expect(bridge.output()).not.toContain('messages are being dropped')
    const sent = new Set([...journal.messages.values()].map(({ device, ts }) => `${device} ${ts}`))
    await until(async () => (await stored()) >= sent.size, 'all have come over the bridge')
    const report = await check(journal, system, fleet)
    expect(holds(report), JSON.stringify(report, null, 2)).toBe(true)
    expect(report).toMatchObject({ lost: 0, duplicated: 0 })
  })

  /** Messages in the log, of this start and the ones before. */
  async function stored(): Promise<number> {
    const answer = await fetch(`http://127.0.0.1:${system.ports.sql}/`, {
      method: 'POST',
      body: "SELECT uniqExact(device, ts) FROM telemetry.readings WHERE device LIKE 'bridged-%' FORMAT TabSeparated",
    })
    return Number(await answer.text())
  }

  async function untilStored(more: number): Promise<void> {
    const before = await stored()
    await until(async () => (await stored()) >= before + more, `${more} more are stored`)
  }

  async function letGo(reason: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${system.ports.http}/metrics`)).text()
    return Number(
      new RegExp(`^telemetry_messages_let_go_total\\{reason="${reason}"\\} (\\d+)$`, 'm').exec(text)?.[1] ?? 0,
    )
  }
})
