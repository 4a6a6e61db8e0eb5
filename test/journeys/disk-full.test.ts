/** The disk fills up under load, and is emptied again: nothing is acknowledged meanwhile, nothing ends, nothing is lost. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Fleet, openFleet } from '../../bench/generator.ts'
import { check, type FleetJournal, holds, openJournal } from '../crash/checker.ts'
import { freePorts, isAlive, type RunningSystem, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'
import { stays, until } from '../waits.ts'
import { readiness } from './observed.ts'
import { besides, canMount, onDiskOf, openFiller } from './small-disk.ts'

const DISK_MB = 400
const DEVICES = 20
const RATE = 500

const possible = canMount()
if (!possible) process.stderr.write('SKIPPED: the full disk, for want of a mount of its own (unshare -Urm, nsenter).\n')

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-disk-'))
let system: SystemOptions
let running: RunningSystem
let fleet: Fleet
let journal: FleetJournal

describe.skipIf(!possible)('while the disk is full', () => {
  beforeAll(async () => {
    system = { dataDir, ports: await freePorts(), dist: resolve('dist') }
    running = await startSystem({ ...system, launcher: onDiskOf(DISK_MB, dataDir) })
    // Commands must see the same disk.
    system = { ...system, launcher: besides(running.pid) }
    journal = openJournal()
    const devices = Array.from({ length: DEVICES }, (_, n) => `disk-${String(n).padStart(2, '0')}`)
    const { mqtt } = system.ports
    fleet = await openFleet({ port: mqtt, devices, connections: DEVICES, window: 50, rate: RATE, journal })
  })
  afterAll(async () => {
    fleet.close()
    await running.killTree()
    rmSync(dataDir, { recursive: true, force: true })
  })

  it('nothing is acknowledged, all else answers, and it goes on by itself when there is room [G1] [G5]', async () => {
    const filler = openFiller(running.pid, dataDir)
    const children = [running.child('writer'), running.child('database')]
    fleet.start()
    await until(() => fleet.counts().acked > RATE, 'acknowledged at first')

    filler.fill()
    await until(async () => (await readiness(running.ports)).status === 503, 'the log takes nothing')
    filler.fill()
    const { checks } = await readiness(running.ports)
    expect(checks.log).toMatchObject({ ok: false, detail: expect.stringContaining('takes nothing') })
    const { acked } = fleet.counts()
    await stays('no PUBACK', () => fleet.counts().acked === acked, 2_000)
    expect(fleet.counts().inFlight).toBeGreaterThan(DEVICES)
    expect(await runCommand(['quarantine', 'ls'], system)).toMatchObject({ code: 0, stderr: '' })
    const state = await fetch(`http://127.0.0.1:${running.ports.http}/v1/devices/disk-00`)
    expect(state.status).toBe(200)

    filler.remove()
    const resumedMs = await until(() => fleet.counts().acked > acked + RATE, 'acknowledged again')
    process.stdout.write(`disk full: acknowledgements resumed ${Math.round(resumedMs)} ms after there was room\n`)
    await until(async () => (await readiness(running.ports)).status === 200, 'ready again')
    expect([running.pid, ...children].map(isAlive)).toEqual([true, true, true])
    expect(fleet.counts().reconnects).toBe(0)
  })

  it('and afterwards all that was acknowledged is in ClickHouse, once [G1] [G2] [G7]', async () => {
    expect(await fleet.drain(60_000)).toBe(true)
    const report = await check(journal, system, fleet)
    expect(holds(report), JSON.stringify(report, null, 2) + running.output()).toBe(true)
  })
})
