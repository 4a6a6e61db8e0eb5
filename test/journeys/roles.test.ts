/** The roles as processes: how they end, and what they say when they cannot start. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { freePorts, killProcess, runCommand } from '../crash/system.ts'

/** Nobody listens there. */
const NOWHERE = { KAFKA_BROKERS: '127.0.0.1:1', REDIS_URL: 'redis://127.0.0.1:1', CLICKHOUSE_URL: 'http://127.0.0.1:1' }
const ROLES = ['broker', 'writer', 'reader', 'api'] as const

it.each(ROLES)('%s without settings ends with 1 and a sentence that names them', async role => {
  const { code, stderr } = await runCommand([role], { dataDir: '/nowhere', ports: await freePorts() })
  expect(code).toBe(1)
  expect(stderr).toMatch(new RegExp(`\`surgetank ${role}\` shares the .* with other processes: set KAFKA_BROKERS`))
  expect(stderr.trim().split('\n')).toHaveLength(1)
})

it('a contradiction of settings ends it with 1 and a sentence [G6]', async () => {
  const env = { ...NOWHERE, SURGETANK_LISTEN: '0.0.0.0' }
  const { code, stderr } = await runCommand(['broker'], { dataDir: '/nowhere', ports: await freePorts(), env })
  expect(code).toBe(1)
  expect(stderr).toContain('set SURGETANK_UNAUTHENTICATED=allow if every peer')
})

it.each(ROLES)('%s that waits for servers answers health, and SIGTERM ends it with 0', async role => {
  const { pid, httpPort, ended, output } = await startWaiting(role)
  expect((await fetch(`http://127.0.0.1:${httpPort}/healthz`)).status).toBe(200)
  expect((await fetch(`http://127.0.0.1:${httpPort}/metrics`)).status).toBe(200)
  process.kill(pid, 'SIGTERM')
  expect(await ended, output()).toBe(0)
  expect(output()).not.toContain('is ready')
})

it('all of it in one process waits for servers as well, keeps no directory, and SIGTERM ends it with 0', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-none-'))
  onTestFinished(() => rmSync(dataDir, { recursive: true }))
  const { pid, ended, output } = start([], { SURGETANK_DATA_DIR: join(dataDir, 'data') })
  await expect.poll(output).toContain('waiting for the log')
  process.kill(pid, 'SIGTERM')
  expect(await ended, output()).toBe(0)
  expect(readdirSync(dataDir)).toEqual([])
})

interface Waiting {
  readonly pid: number
  readonly httpPort: number
  readonly ended: Promise<number | null>
  output(): string
}

/** Resolves when it answers health. */
async function startWaiting(role: string): Promise<Waiting> {
  const httpPort = (await freePorts()).http
  const started = start([role], { SURGETANK_HTTP_PORT: String(httpPort), SURGETANK_MQTT_PORT: '0' })
  const answers = async () => (await fetch(`http://127.0.0.1:${httpPort}/healthz`).catch(() => null))?.status
  await expect.poll(answers).toBe(200)
  return { ...started, httpPort }
}

function start(args: readonly string[], settings: Readonly<Record<string, string>>): Omit<Waiting, 'httpPort'> {
  const env = { PATH: process.env.PATH, ...settings, ...NOWHERE }
  const child = spawn(process.execPath, ['dist/main.js', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (output += chunk))
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  const pid = child.pid ?? 0
  onTestFinished(() => killProcess(pid))
  return { pid, ended, output: () => output }
}
