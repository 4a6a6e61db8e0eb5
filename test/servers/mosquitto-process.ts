/** Debian's mosquitto as a process with a configuration of its own, on a free port of 127.0.0.1, until the test ends it. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { accepts, freePort } from '../free-port.ts'
import { until } from '../waits.ts'

/** Debian puts it where the PATH of a user may not look. */
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` }

/** Its help names its version, with an exit code of 3. */
export const mosquittoHere = /mosquitto version/.test(`${spawnSync('mosquitto', ['-h'], { env }).stdout}`)

export interface MosquittoProcess {
  readonly port: number
  /** What it wrote so far. */
  output(): string
  /** SIGTERM, on which it saves what it holds, and a new process on the same port. */
  restart(): Promise<void>
  stop(): Promise<void>
}

/** `configure` gives the lines of mosquitto.conf beside its listener; `dir` is its own. */
export async function startMosquittoProcess(configure: (dir: string) => readonly string[]): Promise<MosquittoProcess> {
  const dir = await mkdtemp(join(tmpdir(), 'surgetank-mosquitto-'))
  const port = await freePort()
  const config = join(dir, 'mosquitto.conf')
  const lines = [`listener ${port} 127.0.0.1`, 'allow_anonymous true', ...configure(dir)]
  await writeFile(config, `${lines.join('\n')}\n`)
  let output = ''
  let child = await start()
  return { port, output: () => output, restart, stop }

  async function start(): Promise<ChildProcess> {
    const started = spawn('mosquitto', ['-v', '-c', config], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [started.stdout, started.stderr]) stream.on('data', chunk => (output += chunk))
    process.once('exit', () => started.kill('SIGKILL'))
    await until(async () => hasEnded(started) || (await accepts(port)), 'mosquitto listens')
    if (hasEnded(started)) throw new Error(`mosquitto ended:\n${output}`)
    return started
  }

  async function end(): Promise<void> {
    const exited = hasEnded(child) ? null : once(child, 'exit')
    child.kill('SIGTERM')
    await exited
  }

  async function restart(): Promise<void> {
    await end()
    child = await start()
  }

  async function stop(): Promise<void> {
    await end()
    await rm(dir, { recursive: true, force: true })
  }
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
}
