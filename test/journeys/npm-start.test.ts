/**
 * `npm start`, the way of whoever has just cloned it, and of a container: a SIGTERM to npm ends all of it. So does one to
 * every process at once, the way of a service manager, and no child is started again then.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { findRunning } from '../../manager/data-dir.ts'
import { childrenOf, freePorts, isAlive, killProcess, untilGone } from '../crash/system.ts'
import { until } from '../waits.ts'

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-npm-'))
const left: number[] = []

afterAll(() => {
  for (const pid of left.filter(isAlive)) killProcess(pid)
  rmSync(dataDir, { recursive: true, force: true })
})

it('SIGTERM to `npm start` drains and ends every process, and releases the data directory', async () => {
  const { npm, all } = await npmStart()
  process.kill(npm, 'SIGTERM')
  const goneMs = await untilGone(all)
  expectReleased()
  process.stdout.write(`npm start and all of it gone ${Math.round(goneMs)} ms after SIGTERM\n`)
})

it('SIGTERM to every process at once is the same, and starts no child again', async () => {
  const { npm, all, output } = await npmStart()
  process.kill(-npm, 'SIGTERM')
  await untilGone(all)
  await until(() => output().includes('draining'), 'what it said is read')
  expect(output()).not.toContain('starting it again')
  expect(output()).not.toContain('took too long')
  expectReleased()
})

async function npmStart(): Promise<{ npm: number; all: number[]; output: () => string }> {
  const ports = await freePorts()
  const settings = {
    SURGETANK_DATA_DIR: dataDir,
    SURGETANK_MQTT_PORT: String(ports.mqtt),
    SURGETANK_HTTP_PORT: String(ports.http),
    SURGETANK_SQL_PORT: String(ports.sql),
  }
  const child = spawn('npm', ['start'], {
    env: { ...process.env, ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A process group of its own.
    detached: true,
  })
  const npm = child.pid ?? 0
  left.push(npm)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (output += chunk))
  await until(() => output.includes('Surgetank is ready'), 'it is ready').catch((error: Error) => {
    throw new Error(`${error.message}\n${output}`)
  })
  const all = [npm, ...processesUnder(npm)]
  left.push(...all)
  expect(all).toContain(findRunning(dataDir)?.pid)
  expect(all.length).toBeGreaterThan(3)
  return { npm, all, output: () => output }
}

function expectReleased(): void {
  expect(findRunning(dataDir)).toBeNull()
  expect(readdirSync(dataDir).filter(name => name.startsWith('surgetank.lock'))).toEqual([])
}

/** The ids of the processes that a process started, and those that they started. */
function processesUnder(pid: number): number[] {
  return childrenOf(pid).flatMap(child => [child, ...processesUnder(child)])
}
