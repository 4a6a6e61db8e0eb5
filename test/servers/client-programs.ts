/**
 * Clients that others wrote, as programs of `test/clients/programs/`: where their libraries are, whether they are here, and
 * how each is started. The libraries are downloaded once, as the jars of Kafka are; the programs are built by the tests.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'

const PROGRAMS = 'test/clients/programs'
/** Where `.ci/run` puts the libraries; `TEST_CLIENTS` names another folder. Its name has the versions of them all. */
const LIBRARIES = process.env.TEST_CLIENTS ?? join(homedir(), '.cache/surgetank-test/clients-1')
const JARS = join(LIBRARIES, 'java')
const PYTHON = join(LIBRARIES, 'python')
const GO_MODULES = join(LIBRARIES, 'go')
const GO_ENV = { ...process.env, GOMODCACHE: GO_MODULES, GOFLAGS: '-mod=readonly -modcacherw', GOPROXY: 'off' }

export const javaClientsHere =
  existsSync(JARS) &&
  readdirSync(JARS).some(name => name.startsWith('hivemq-mqtt-client-')) &&
  spawnSync('javac', ['-version']).status === 0

export const pythonClientsHere =
  existsSync(join(PYTHON, 'paho')) && spawnSync('python3', ['-c', 'import sys']).status === 0

export const goClientsHere =
  existsSync(join(GO_MODULES, 'github.com/eclipse')) && spawnSync('go', ['version'], { env: GO_ENV }).status === 0

export const clientProgramsHere = javaClientsHere && pythonClientsHere && goClientsHere

export const CLIENT_NAMES = ['HiveMQ (Java)', 'Paho (Java)', 'Paho (Python)', 'Paho (Go)', 'mqtt.js'] as const
export type ClientName = (typeof CLIENT_NAMES)[number]

export interface ClientPrograms {
  /** The command of a client, to which its arguments are added. */
  commandOf(name: ClientName): readonly string[]
  /** The command of autopaho; its argument is the port. */
  readonly autopaho: readonly string[]
  /** Variables that the programs need. */
  readonly env: Readonly<Record<string, string>>
  remove(): void
}

/** Builds them in a directory of their own; it takes seconds. */
export function buildClientPrograms(): ClientPrograms {
  const dir = mkdtempSync(join(tmpdir(), 'surgetank-clients-'))
  const sources = ['HivemqPublisher.java', 'PahoPublisher.java'].map(name => join(PROGRAMS, 'java', name))
  execFileSync('javac', ['-d', dir, '-cp', `${JARS}/*`, ...sources])
  execFileSync('go', ['build', '-o', `${dir}/`, './...'], { cwd: join(PROGRAMS, 'go'), env: GO_ENV })
  const java = [
    'java',
    '-XX:+UseSerialGC',
    '-XX:TieredStopAtLevel=1',
    '-Xshare:auto',
    '-Xmx64m',
    '-cp',
    `${dir}:${JARS}/*`,
  ]
  const commands: Record<ClientName, readonly string[]> = {
    'HiveMQ (Java)': [...java, 'HivemqPublisher'],
    'Paho (Java)': [...java, 'PahoPublisher'],
    'Paho (Python)': ['python3', join(PROGRAMS, 'python/paho_publisher.py')],
    'Paho (Go)': [join(dir, 'paho')],
    'mqtt.js': [process.execPath, 'dist/test/clients/programs/mqtt-js.js'],
  }
  return {
    commandOf: name => commands[name],
    autopaho: [join(dir, 'autopaho')],
    env: { PATH: process.env.PATH ?? '', HOME: homedir(), PYTHONPATH: PYTHON, PYTHONDONTWRITEBYTECODE: '1' },
    remove: () => rmSync(dir, { recursive: true, force: true }),
  }
}
