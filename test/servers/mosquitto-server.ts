/** Debian's mosquitto as a broker on a free port of 127.0.0.1, to hold beside ours what another broker does. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../free-port.ts'
import { until } from '../waits.ts'

/** Debian puts it where a user's PATH may not look. */
export const MOSQUITTO_ENV = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` }

/** Its version, with which some exit with 3. */
export const mosquittoHere = /mosquitto version/.test(
  `${spawnSync('mosquitto', ['-h'], { env: MOSQUITTO_ENV }).stdout}`,
)

export interface MosquittoServer {
  readonly port: number
  stop(): Promise<void>
}

/** Lines of mosquitto.conf are added to a listener that asks for no name and queues without a bound. */
export async function startMosquitto(more: readonly string[] = []): Promise<MosquittoServer> {
  const dir = mkdtempSync(join(tmpdir(), 'surgetank-mosquitto-'))
  const port = await freePort()
  const lines = [
    `listener ${port} 127.0.0.1`,
    'allow_anonymous true',
    'max_queued_messages 0',
    'max_inflight_messages 0',
  ]
  const config = join(dir, 'mosquitto.conf')
  writeFileSync(config, `${[...lines, ...more].join('\n')}\n`)
  const child = spawn('mosquitto', ['-c', config], { env: MOSQUITTO_ENV, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (output += chunk))
  process.once('exit', () => child.kill('SIGKILL'))
  await until(async () => hasEnded(child) || (await accepts(port)), 'mosquitto listens')
  if (hasEnded(child)) throw new Error(`mosquitto ended:\n${output}`)
  return {
    port,
    stop: async () => {
      const exited = new Promise(resolve => child.once('exit', resolve))
      child.kill('SIGTERM')
      if (!hasEnded(child)) await exited
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
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
