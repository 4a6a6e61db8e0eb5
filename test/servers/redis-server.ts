/**
 * Real Redis servers for tests: one, or a Cluster of three masters, on free ports of 127.0.0.1, each in a directory of its own.
 * They can be killed and started again on the same port, with what they had on disk or emptied.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Redis } from 'ioredis'
import { freePort } from '../free-port.ts'

export const redisHere: boolean = isHere()

export interface TestRedis {
  readonly port: number
  readonly url: string
  readonly pid: number
  /** One command, on a connection of its own. */
  command(name: string, ...args: (string | number)[]): Promise<unknown>
  /** Ends it with SIGKILL. */
  kill(): Promise<void>
  /** Stops it where it stands, and lets it go on. */
  freeze(): void
  thaw(): void
  /** Starts it again on its port; `emptied`: without what it had on disk. */
  start(options?: { readonly emptied?: boolean }): Promise<void>
  /** Ends it for good. */
  stop(): Promise<void>
}

export interface TestCluster {
  readonly nodes: readonly TestRedis[]
  readonly url: string
  /** A replica that has all that the master has, and takes over when it dies. */
  addReplica(of: TestRedis): Promise<TestRedis>
  /** Moves all slots, and what is in them, from one master to another while they are in use. */
  moveSlots(from: TestRedis, to: TestRedis): Promise<void>
  stop(): Promise<void>
}

const SLOTS = 16_384
const STARTS_MAX = 5

/** `settings`: as in redis.conf, such as `['--appendonly', 'yes']`; `$port` in one stands for the port. */
export async function startRedis(settings: readonly string[] = []): Promise<TestRedis> {
  const dir = await mkdtemp(join(tmpdir(), 'surgetank-redis-'))
  // Another process may take the port between the look and the start.
  for (let tries = 1; ; tries++) {
    const port = await freePort()
    try {
      return await startOn(port, dir, settings)
    } catch (error) {
      if (tries === STARTS_MAX) throw error
    }
  }
}

async function startOn(port: number, dir: string, settings: readonly string[]): Promise<TestRedis> {
  let child: ChildProcess | null = null
  await start()
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    get pid() {
      return child?.pid ?? 0
    },
    command,
    kill,
    freeze: () => child?.kill('SIGSTOP'),
    thaw: () => child?.kill('SIGCONT'),
    start,
    stop,
  }

  async function start({ emptied = false } = {}): Promise<void> {
    if (emptied) {
      for (const name of await readdir(dir)) {
        // What makes it a node of its Cluster is no data.
        if (name !== 'nodes.conf') await rm(join(dir, name), { recursive: true, force: true })
      }
    }
    const fixed = ['--port', String(port), '--bind', '127.0.0.1', '--dir', dir, '--save', '', '--daemonize', 'no']
    const own = settings.map(setting => (setting === '$port' ? String(port) : setting))
    child = spawn('redis-server', [...fixed, ...own], { stdio: ['ignore', 'pipe', 'ignore'] })
    await ready(child)
  }

  async function command(name: string, ...args: (string | number)[]): Promise<unknown> {
    const client = new Redis({ host: '127.0.0.1', port, lazyConnect: true, retryStrategy: null })
    try {
      await client.connect()
      return await client.call(name, ...args.map(String))
    } finally {
      client.disconnect()
    }
  }

  async function kill(): Promise<void> {
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }

  async function stop(): Promise<void> {
    await kill()
    await rm(dir, { recursive: true, force: true })
  }
}

function ready(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    const lines: string[] = []
    if (child.stdout === null) throw new Error('It has no output.')
    createInterface({ input: child.stdout }).on('line', line => {
      lines.push(line)
      if (line.includes('Ready to accept connections')) resolve()
    })
    child.once('error', reject)
    child.once('exit', code => reject(new Error(`redis-server ended with ${code}: ${lines.slice(-5).join('\n')}`)))
  })
}

/** Three masters with a third of the slots each, and no replicas. */
export async function startCluster(): Promise<TestCluster> {
  const nodes = await Promise.all([0, 1, 2].map(startNode))
  const [first] = nodes
  if (first === undefined) throw new Error('There are no nodes.')
  const replicas: TestRedis[] = []
  for (const [at, node] of nodes.entries()) {
    const from = Math.ceil((SLOTS * at) / nodes.length)
    const to = Math.ceil((SLOTS * (at + 1)) / nodes.length) - 1
    await node.command('CLUSTER', 'ADDSLOTSRANGE', from, to)
    if (node !== first) await meet(node)
  }
  for (const node of nodes) await untilJoined(node, nodes.length)
  return { nodes, url: nodes.map(({ url }) => url).join(','), addReplica, moveSlots, stop }

  async function meet(node: TestRedis): Promise<void> {
    const busPort = (await node.command('CONFIG', 'GET', 'cluster-port')) as [string, string]
    await first?.command('CLUSTER', 'MEET', '127.0.0.1', node.port, busPort[1])
  }

  async function addReplica(of: TestRedis): Promise<TestRedis> {
    const replica = await startNode()
    replicas.push(replica)
    await meet(replica)
    await untilJoined(replica, nodes.length)
    await replica.command('CLUSTER', 'REPLICATE', String(await of.command('CLUSTER', 'MYID')))
    await untilInfo(replica, 'replication', 'master_link_status:up')
    return replica
  }

  async function moveSlots(from: TestRedis, to: TestRedis): Promise<void> {
    const [source, target] = [
      String(await from.command('CLUSTER', 'MYID')),
      String(await to.command('CLUSTER', 'MYID')),
    ]
    const what = ['--cluster-from', source, '--cluster-to', target, '--cluster-slots', String(SLOTS), '--cluster-yes']
    const child = spawn('redis-cli', ['--cluster', 'reshard', `127.0.0.1:${to.port}`, ...what], { stdio: 'ignore' })
    const [code] = (await once(child, 'exit')) as [number | null]
    if (code !== 0) throw new Error(`redis-cli ended with ${code}.`)
  }

  async function stop(): Promise<void> {
    await Promise.all([...nodes, ...replicas].map(node => node.stop()))
  }
}

async function startNode(): Promise<TestRedis> {
  const bus = await freePort()
  return startRedis(['--cluster-enabled', 'yes', '--cluster-port', String(bus), '--cluster-node-timeout', '5000'])
}

async function untilInfo(node: TestRedis, section: string, text: string): Promise<void> {
  while (!String(await node.command('INFO', section)).includes(text))
    await new Promise(resolve => setTimeout(resolve, 50))
}

/** The nodes gossip ten times a second; there is no event to wait for. */
async function untilJoined(node: TestRedis, size: number): Promise<void> {
  for (;;) {
    const info = String(await node.command('CLUSTER', 'INFO'))
    if (info.includes('cluster_state:ok') && info.includes(`cluster_size:${size}`)) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

function isHere(): boolean {
  try {
    execFileSync('redis-server', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
