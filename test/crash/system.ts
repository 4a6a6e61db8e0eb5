/** The whole system as its processes, to be started, killed and started again by a test. It is known only from outside. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { freePort } from '../free-port.ts'
import { until } from '../waits.ts'

export interface SystemPorts {
  readonly mqtt: number
  readonly http: number
  readonly sql: number
}

export interface SystemOptions {
  readonly dataDir: string
  readonly ports: SystemPorts
  /** The folder of the build; a test that plants a bug gives a copy. */
  readonly dist?: string
  readonly env?: Readonly<Record<string, string>>
  /** Words before `node` that end in an exec of it, such as those that give it a disk of its own. */
  readonly launcher?: readonly string[]
}

export interface RunningSystem {
  readonly pid: number
  readonly ports: SystemPorts
  /** What it wrote to stdout and stderr so far. */
  output(): string
  /** The id of one of its children's processes. */
  child(name: keyof typeof CHILD_PROCESS): number
  /** SIGKILL of every process of it, at one moment; resolves when all are gone. */
  killTree(): Promise<void>
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>
}

const READY_MS_MAX = 120_000
const CHILD_PROCESS = { writer: 'writer-process', database: 'database/embedded', sql: 'database/sql-port' }

/** Resolves when it printed that it is ready. */
export async function startSystem(options: SystemOptions): Promise<RunningSystem> {
  const { dataDir, ports, dist = 'dist', env = {}, launcher = [] } = options
  const settings = {
    SURGETANK_DATA_DIR: dataDir,
    SURGETANK_MQTT_PORT: String(ports.mqtt),
    SURGETANK_HTTP_PORT: String(ports.http),
    SURGETANK_SQL_PORT: String(ports.sql),
    SURGETANK_LOG_LEVEL: 'warn',
  }
  const [command = process.execPath, ...args] = [...launcher, process.execPath, `${dist}/main.js`]
  const main = spawn(command, args, {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...settings, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [main.stdout, main.stderr]) stream.on('data', chunk => (output += chunk))
  const exited = new Promise<number | null>(resolve => main.once('exit', code => resolve(code)))
  await ready(main, () => output).catch((error: Error) => {
    // Its children end with it.
    main.kill('SIGKILL')
    throw error
  })
  const pid = main.pid ?? 0
  return { pid, ports, output: () => output, child, killTree, stop }

  function child(name: keyof typeof CHILD_PROCESS): number {
    const found = childrenOf(pid).find(one => textOf(one, 'cmdline').includes(CHILD_PROCESS[name]))
    if (found === undefined) throw new Error(`No ${name} runs under ${pid}.`)
    return found
  }

  async function killTree(): Promise<void> {
    const all = [pid, ...childrenOf(pid)]
    for (const one of all) killProcess(one)
    await exited
    await untilGone(all)
  }

  function stop(): Promise<number | null> {
    main.kill('SIGTERM')
    return exited
  }
}

/** SIGKILL; a process that has just ended by itself is as good. */
export function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

function ready(main: ChildProcess, output: () => string): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`Not ready in time:\n${output()}`)), READY_MS_MAX)
    main.stdout?.on('data', () => {
      if (!output().includes('Surgetank is ready')) return
      clearTimeout(timer)
      resolve()
    })
    main.once('exit', code => {
      clearTimeout(timer)
      reject(new Error(`It ended with ${code}:\n${output()}`))
    })
  })
}

/** Those that a process has started and that are there. */
export function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => Number(statOf(pid)[1]) === parent)
}

/** False for a process that has ended, also when nobody has asked for its exit code yet. */
export function isAlive(pid: number): boolean {
  const [state = 'Z'] = statOf(pid)
  return state !== 'Z'
}

/** Resolves with the ms until none of them is alive. */
export function untilGone(pids: readonly number[]): Promise<number> {
  return until(() => !pids.some(isAlive), 'every process is gone')
}

/** Its state, its parent, and what else /proc tells; nothing when it is not there. */
function statOf(pid: number): string[] {
  const stat = textOf(pid, 'stat')
  return stat === '' ? [] : stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

function textOf(pid: number, file: 'stat' | 'cmdline'): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}

/** Ports that were free a moment ago. */
export async function freePorts(): Promise<SystemPorts> {
  const [mqtt, http, sql] = await Promise.all([freePort(), freePort(), freePort()])
  return { mqtt, http, sql }
}

/** A command of the command line, on the same data and ports. Never rejects for its exit code. */
export async function runCommand(
  args: readonly string[],
  { dataDir, ports, dist = 'dist', env = {}, launcher = [] }: SystemOptions,
): Promise<{ code: number; stdout: string; stderr: string }> {
  const settings = { SURGETANK_DATA_DIR: dataDir, SURGETANK_SQL_PORT: String(ports.sql) }
  const options = { env: { PATH: process.env.PATH, ...settings, ...env }, maxBuffer: 64 << 20, timeout: 120_000 }
  const [command = process.execPath, ...words] = [...launcher, process.execPath, `${dist}/main.js`, ...args]
  try {
    const { stdout, stderr } = await promisify(execFile)(command, words, options)
    return { code: 0, stdout, stderr }
  } catch (error) {
    const { code, stdout = '', stderr = '' } = error as { code?: number; stdout?: string; stderr?: string }
    return { code: typeof code === 'number' ? code : -1, stdout, stderr }
  }
}
