/**
 * Debian's mosquitto with a bridge, as people put Surgetank beside a broker that they have: a listener on a free port of
 * 127.0.0.1, and what arrives there on `devices/#` goes out to another broker. All of the bridge is as it comes, its
 * notifications, its session and its protocol too, but for the pause before it connects again, which is 5 to 30 seconds.
 * It keeps its messages on disk, as Debian sets it up, and can be ended and started again.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../free-port.ts'
import { until } from '../waits.ts'

/** Debian puts it where the PATH of a user may not look. */
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` }

/** Its help comes with an exit code of 3. */
export const mosquittoHere = /mosquitto version/.test(`${spawnSync('mosquitto', ['-h'], { env }).stdout}`)

export interface MosquittoBridge {
  readonly port: number
  /** What it wrote so far. */
  output(): string
  /** SIGTERM, on which it saves what it holds, and a new process on the same port. */
  restart(): Promise<void>
  stop(): Promise<void>
}

/** Lines of mosquitto.conf for the bridge are added to the default. */
export async function startBridge(to: number, more: readonly string[] = []): Promise<MosquittoBridge> {
  const dir = await mkdtemp(join(tmpdir(), 'surgetank-bridge-'))
  const port = await freePort()
  const listener = [`listener ${port} 127.0.0.1`, 'allow_anonymous true', `user ${userInfo().username}`]
  const kept = ['persistence true', `persistence_location ${dir}/`]
  const bridge = [
    'connection surgetank',
    `address 127.0.0.1:${to}`,
    'topic devices/# out 1',
    'restart_timeout 1',
    ...more,
  ]
  const config = join(dir, 'mosquitto.conf')
  await writeFile(config, `${[...listener, ...kept, ...bridge].join('\n')}\n`)
  let output = ''
  let child = await start()
  return { port, output: () => output, restart, stop }

  async function start(): Promise<ChildProcess> {
    const started = spawn('mosquitto', ['-v', '-c', config], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [started.stdout, started.stderr]) stream.on('data', chunk => (output += chunk))
    process.once('exit', () => started.kill('SIGKILL'))
    await until(async () => started.exitCode !== null || (await accepts(port)), 'mosquitto listens')
    if (started.exitCode !== null) throw new Error(`mosquitto ended:\n${output}`)
    return started
  }

  async function end(): Promise<void> {
    const exited = child.exitCode === null ? once(child, 'exit') : null
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

function accepts(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1', () => done(true))
    socket.once('error', () => done(false))
    const done = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
  })
}
