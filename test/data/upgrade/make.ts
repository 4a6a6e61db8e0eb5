/**
 * Made the packs beside this file, once, each from the commit that its name begins with:
 *
 *   npm run build && node dist/test/data/upgrade/make.js 189cb15 5d8cdfe 758f935 b556fd9 --build b556fd9
 *
 * 189cb15 is the first commit that ran, 5d8cdfe the last of schema version 1 (whose file was edited in between), 758f935 the
 * last of version 2, b556fd9 the last of version 3. Of each: `killed`, a directory whose process was ended by SIGKILL right
 * after an insert that the writer had not heard of: its plan is still open, and later readings are in the log only; and
 * `ended`, one that was ended by SIGTERM. After `--build`: the compiled JavaScript of that commit, with what it reads beside it.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { freePorts, type RunningSystem, type SystemOptions, startSystem } from '../../crash/system.ts'
import { type KnownDirectory, pack, readPosition, writeKnown } from '../../upgrade/packed.ts'
import { until } from '../../waits.ts'
import { type KnownFleet, openKnownFleet } from './known-fleet.ts'

const [ROUNDS_COMMITTED, ROUNDS_STORED, ROUNDS_MORE] = [2, 1, 2]
/** Longer than a batch waits until its plan is durable, and than from an insert to its commit. */
const STEP_MS = 2_500

const words = process.argv.slice(2)
const at = words.indexOf('--build')
const commits = at < 0 ? words : words.slice(0, at)
for (const commit of commits) await within(commit, makeDirectories)
for (const commit of at < 0 ? [] : words.slice(at + 1)) await within(commit, makeBuild)

/** In a work tree of the commit, built with the packages that are installed here. */
async function within(commit: string, make: (commit: string, tree: string) => Promise<void>): Promise<void> {
  const tree = join(mkdtempSync(join(tmpdir(), 'surgetank-old-')), commit)
  execFileSync('git', ['worktree', 'add', '--quiet', '--detach', tree, commit])
  try {
    execFileSync('ln', ['-s', resolve('node_modules'), join(tree, 'node_modules')])
    // The tests of the first commit have errors of types; the compiler writes its JavaScript all the same.
    execFileSync('sh', ['-c', 'npx tsc -b || true'], { cwd: tree })
    await make(commit, tree)
  } finally {
    execFileSync('git', ['worktree', 'remove', '--force', tree])
    rmSync(dirname(tree), { recursive: true })
  }
}

async function makeDirectories(commit: string, tree: string): Promise<void> {
  for (const how of ['killed', 'ended'] as const) {
    const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-made-'))
    const system = { dataDir, ports: await freePorts(), dist: join(tree, 'dist') }
    const known = await run(system, how)
    const schema = newestSchema(tree)
    const bytes = pack(`${commit}-${how}`, dataDir)
    writeKnown(`${commit}-${how}`, { commit, schema, how, ...known })
    const { acknowledged, stored } = known
    process.stdout.write(`${commit}-${how}: ${bytes} bytes, ${acknowledged.length} readings, ${stored} stored\n`)
    rmSync(dataDir, { recursive: true })
  }
}

async function run(
  system: SystemOptions,
  how: 'killed' | 'ended',
): Promise<Omit<KnownDirectory, 'commit' | 'schema' | 'how'>> {
  const running = await startSystem(system)
  const fleet = await openKnownFleet(system.ports.mqtt)
  await publish(fleet, ROUNDS_COMMITTED)
  await untilStored(system, fleet)
  await pause(STEP_MS)
  return how === 'killed' ? kill(running, fleet, system.dataDir) : end(running, fleet)
}

async function publish(fleet: KnownFleet, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) await fleet.publish()
}

/** ClickHouse is frozen when the plan is made, and the writer when the insert is done: it never hears of that. */
async function kill(running: RunningSystem, fleet: KnownFleet, dataDir: string) {
  const [database, writer] = [running.child('database'), running.child('writer')]
  const before = await storedIn(running)
  process.kill(database, 'SIGSTOP')
  await publish(fleet, ROUNDS_STORED)
  await pause(STEP_MS)
  process.kill(writer, 'SIGSTOP')
  process.kill(database, 'SIGCONT')
  await until(async () => (await storedIn(running)) > before, 'the insert is done')
  await publish(fleet, ROUNDS_MORE)
  const stored = await storedIn(running)
  await running.killTree()
  await fleet.close()
  const { committed, hasPlan } = await readPosition(dataDir)
  if (!hasPlan || committed !== before) throw new Error('No plan is open: make it again.')
  return { stored, committed, ...about(fleet) }
}

async function end(running: RunningSystem, fleet: KnownFleet) {
  await publish(fleet, ROUNDS_STORED + ROUNDS_MORE)
  await untilStored(running, fleet)
  await pause(STEP_MS)
  await fleet.close()
  await running.stop()
  const { length } = fleet.acknowledged
  return { stored: length, committed: length, ...about(fleet) }
}

function about({ acknowledged, quarantined, newest }: KnownFleet) {
  return { acknowledged, quarantined, newest: newest() }
}

function untilStored(system: Pick<SystemOptions, 'ports'>, { acknowledged }: KnownFleet): Promise<number> {
  return until(async () => (await storedIn(system)) === acknowledged.length, 'it is in ClickHouse')
}

async function storedIn({ ports }: Pick<SystemOptions, 'ports'>): Promise<number> {
  const body = 'SELECT count() FROM telemetry.readings FORMAT TSV'
  return Number(await (await fetch(`http://127.0.0.1:${ports.sql}/`, { method: 'POST', body })).text())
}

function newestSchema(tree: string): number {
  const files = execFileSync('ls', [join(tree, 'database/schema')], { encoding: 'utf8' })
  return Math.max(
    ...files
      .trim()
      .split('\n')
      .map(file => Number.parseInt(file, 10)),
  )
}

async function makeBuild(commit: string, tree: string): Promise<void> {
  const build = mkdtempSync(join(tmpdir(), 'surgetank-build-'))
  const left = ['dist/test', 'dist/bench', 'dist/docs'].map(folder => join(tree, folder))
  for (const what of ['dist', 'database', 'space', 'package.json']) {
    cpSync(join(tree, what), join(build, what), { recursive: true, filter })
  }
  process.stdout.write(`${commit}-build: ${pack(`${commit}-build`, build)} bytes\n`)
  rmSync(build, { recursive: true })

  function filter(path: string): boolean {
    return !left.includes(path) && (statSync(path).isDirectory() || /\.(js|sql|lua|json)$/.test(path))
  }
}
