/**
 * Rounds of SIGKILL under load: a fleet of 100 devices publishes 2,000 messages a second at QoS 1 and never stops, and beside
 * it a smaller one of devices with habits (habit-lines.ts); at a random moment the whole tree, the writer or the database is
 * killed, or the power of the disk is cut and with it all that runs; what was not acknowledged is sent again. The same seed does
 * the same after the same pauses.
 */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { type Fleet, openFleet } from '../../bench/generator.ts'
import { type CheckReport, checkAll, openJournal } from './checker.ts'
import { type CutDisk, type FileSystem, openCutDisk } from './cut-disk.ts'
import { type HabitFleet, openHabitFleet } from './habit-fleet.ts'
import { HABIT_LINES } from './habit-lines.ts'
import { openOracle } from './oracle.ts'
import { freePorts, killProcess, type RunningSystem, type SystemOptions, startSystem } from './system.ts'

export type Target = 'tree' | 'writer' | 'database' | 'power'

export interface RoundsOptions {
  readonly rounds: number
  readonly seed: number
  readonly dist?: string
  /** Kills only these; the first three in turn of chance when left out. */
  readonly targets?: readonly Target[]
  readonly rate?: number
  /** The disk whose power 'power' cuts (`canCutPower`), and what lies on it: all, or ClickHouse alone. */
  readonly disk?: { readonly fileSystem: FileSystem; readonly of: 'all' | 'clickhouse' }
  readonly env?: Readonly<Record<string, string>>
}

export interface RoundsReport extends CheckReport {
  readonly kills: Readonly<Record<Target, number>>
  /** Messages that were sent again after a connection was lost. */
  readonly resent: number
}

const DEVICES = 100
const RATE = 2_000
const WINDOW = 100
const DRAIN_MS_MAX = 120_000

export async function runRounds(options: RoundsOptions): Promise<RoundsReport> {
  const { dist = 'dist', env = {}, targets = ['tree', 'writer', 'database'] } = options
  const disk = options.disk === undefined ? null : openCutDisk(options.disk.fileSystem)
  const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-crash-'))
  if (disk !== null)
    placeOn(disk.dir, dataDir, options.disk?.of === 'all' ? ['log', 'clickhouse', 'sessions'] : ['clickhouse'])
  const system = { dataDir, ports: await freePorts(), dist, env }
  const journal = openJournal()
  const oracle = openOracle()
  const kills = { tree: 0, writer: 0, database: 0, power: 0 }
  const random = seeded(options.seed)
  let running: RunningSystem | null = null
  let fleet: Fleet | null = null
  let habitFleet: HabitFleet | null = null
  const devices = Array.from({ length: DEVICES }, (_, n) => `crash-${String(n).padStart(3, '0')}`)
  const rate = options.rate ?? RATE
  try {
    running = await startSystem(system)
    fleet = await openFleet({
      port: system.ports.mqtt,
      devices,
      connections: DEVICES,
      window: WINDOW,
      rate,
      journal,
    })
    habitFleet = await openHabitFleet({ port: system.ports.mqtt, lines: HABIT_LINES, oracle })
    fleet.start()
    habitFleet.start()
    for (let round = 0; round < options.rounds; round++) {
      await pause(700 + random() * 2_000)
      const target = targets[Math.floor(random() * targets.length)] ?? 'tree'
      kills[target]++
      running = await kill(target, { running, disk, system })
    }
    await pause(500)
    await Promise.all([fleet.drain(DRAIN_MS_MAX), habitFleet.drain(DRAIN_MS_MAX)])
    const report = await checkAll(system, { fleet, journal, habits: { fleet: habitFleet, oracle } })
    return { ...report, kills, resent: fleet.counts().resent + habitFleet.counts().resent }
  } finally {
    fleet?.close()
    habitFleet?.close()
    await running?.killTree()
    rmSync(dataDir, { recursive: true, force: true })
    await disk?.remove()
  }
}

/** These folders of a data directory are folders of the disk. */
function placeOn(disk: string, dataDir: string, folders: readonly string[]): void {
  for (const folder of folders) {
    mkdirSync(join(disk, folder))
    symlinkSync(join(disk, folder), join(dataDir, folder))
  }
}

interface Round {
  readonly running: RunningSystem
  readonly disk: CutDisk | null
  readonly system: SystemOptions
}

/** What runs afterwards. */
async function kill(target: Target, { running, disk, system }: Round): Promise<RunningSystem> {
  if (target === 'writer' || target === 'database') {
    killProcess(await findChild(running, target))
    return running
  }
  if (target === 'power') disk?.cutPower()
  await running.killTree()
  if (target === 'power') await disk?.restore()
  return startSystem(system)
}

/** A child that was killed in the rounds before is started again after a pause that grows, and comes back slowly on a busy machine. */
const CHILD_TRIES_MAX = 1_200

/** It may still be on its way back. */
async function findChild(running: RunningSystem, name: 'writer' | 'database'): Promise<number> {
  for (let tries = 0; ; tries++) {
    try {
      return running.child(name)
    } catch (error) {
      if (tries === CHILD_TRIES_MAX) throw error
      await pause(100)
    }
  }
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
