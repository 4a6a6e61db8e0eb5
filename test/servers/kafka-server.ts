/**
 * A real Kafka broker for tests: one KRaft node on free ports in a directory of its own, from the jars that
 * `test/servers/kafka/pom.xml` names. It can be killed, frozen and started again on the same ports and data.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createWriteStream, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { freePorts } from '../crash/system.ts'
import { accepts } from '../free-port.ts'

/** Where `.ci/run` puts the jars; `TEST_KAFKA_JARS` names another folder. */
export const KAFKA_JARS = process.env.TEST_KAFKA_JARS ?? join(homedir(), '.cache/surgetank-test/kafka-4.1.1')

export const kafkaHere =
  existsSync(KAFKA_JARS) &&
  readdirSync(KAFKA_JARS).some(name => name.startsWith('kafka_2.13-')) &&
  spawnSync('java', ['-version']).status === 0

/** Brokers that the environment gives, host:port: suites that only use Kafka use them, those that kill it start their own. */
export const kafkaGiven = process.env.TEST_KAFKA_BROKERS

/** The brokers that were given, or one of its own. */
export async function useKafka(): Promise<Pick<KafkaServer, 'brokers' | 'stop'>> {
  return kafkaGiven === undefined ? startKafka() : { brokers: kafkaGiven, stop: async () => {} }
}

export interface KafkaServer {
  /** host:port, as KAFKA_BROKERS takes it. */
  readonly brokers: string
  readonly port: number
  readonly controllerPort: number
  readonly pid: number
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
  /** SIGTERM: it hands its partitions over to other brokers first. */
  shutDown(): Promise<void>
  /** On the same ports and data, after a kill. */
  restart(): Promise<void>
  freeze(): void
  wake(): void
  stop(): Promise<void>
}

export interface KafkaServerOptions {
  /** Lines of server.properties, beside or instead of ours. */
  readonly properties?: Readonly<Record<string, string>>
  /** Where clients are told to connect, when something stands between. */
  readonly advertisedPort?: number
  /** A broker of the cluster that this controller leads; the controller of its own when left out. */
  readonly joins?: { readonly nodeId: number; readonly controllerPort: number }
  /** Clients must come over TLS and say who they are (SASL PLAIN). */
  readonly secured?: Secured
}

export interface Secured {
  /** PEM on one line each, as server.properties takes them. */
  readonly certificate: string
  readonly key: string
  readonly user: string
  readonly password: string
}

const READY_MS_MAX = 180_000
const CLUSTER_ID = 'surgetankTestCluster01'

export async function startKafka(options: KafkaServerOptions = {}): Promise<KafkaServer> {
  const dir = mkdtempSync(join(tmpdir(), 'surgetank-kafka-'))
  const { mqtt: port, http: ownControllerPort, sql: insidePort } = await freePorts()
  const controllerPort = options.joins?.controllerPort ?? ownControllerPort
  const config = join(dir, 'server.properties')
  writeFileSync(config, propertiesOf(dir, { port, controllerPort, insidePort }, options))
  writeFileSync(join(dir, 'log4j2.xml'), LOGGING)
  run(dir, 'kafka.tools.StorageTool', 'format', '-t', CLUSTER_ID, '-c', config)
  let broker = await launch(dir, config, port)
  return {
    brokers: `127.0.0.1:${port}`,
    port,
    controllerPort,
    get pid() {
      return broker.pid ?? 0
    },
    kill: () => end('SIGKILL'),
    shutDown: () => end('SIGTERM'),
    restart: async () => {
      broker = await launch(dir, config, port)
    },
    freeze: () => void broker.kill('SIGSTOP'),
    wake: () => void broker.kill('SIGCONT'),
    stop: async () => {
      await end('SIGKILL')
      rmSync(dir, { recursive: true, force: true })
    },
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    if (broker.exitCode !== null || broker.signalCode !== null) return
    const exited = new Promise(resolve => broker.once('exit', resolve))
    broker.kill(signal)
    await exited
  }
}

function java(dir: string, heap: string, ...args: string[]): string[] {
  const lean = ['-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xshare:auto', `-Xmx${heap}`]
  const logging = `-Dlog4j2.configurationFile=${join(dir, 'log4j2.xml')}`
  return [...lean, logging, '-cp', `${KAFKA_JARS}/*`, ...args]
}

function run(dir: string, ...args: string[]): void {
  const { status, stdout, stderr } = spawnSync('java', java(dir, '128m', ...args))
  if (status !== 0) throw new Error(`java ${args.join(' ')}\n${stdout}\n${stderr}`)
}

async function launch(dir: string, config: string, port: number): Promise<ChildProcess> {
  const broker = spawn('java', java(dir, '320m', 'kafka.Kafka', config), { stdio: ['ignore', 'pipe', 'pipe'] })
  const file = join(dir, 'server.log')
  const log = createWriteStream(file, { flags: 'a' })
  broker.stdout.pipe(log)
  broker.stderr.pipe(log)
  process.once('exit', () => broker.kill('SIGKILL'))
  const until = Date.now() + READY_MS_MAX
  while (!(await accepts(port))) {
    if (broker.exitCode !== null || Date.now() > until) {
      broker.kill('SIGKILL')
      throw new Error(`Kafka was not ready in time:\n${readFileSync(file, 'utf8').slice(-4_000)}`)
    }
    await pause(100)
  }
  return broker
}

function propertiesOf(
  dir: string,
  { port, controllerPort, insidePort }: Readonly<Record<'port' | 'controllerPort' | 'insidePort', number>>,
  { properties = {}, advertisedPort = port, joins, secured }: KafkaServerOptions,
): string {
  const lines = {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${advertisedPort}`,
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'PLAINTEXT',
    'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
    'log.dirs': join(dir, 'data'),
    'auto.create.topics.enable': 'false',
    'default.replication.factor': '1',
    'offsets.topic.num.partitions': '1',
    'offsets.topic.replication.factor': '1',
    'transaction.state.log.num.partitions': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'share.coordinator.state.topic.replication.factor': '1',
    'share.coordinator.state.topic.min.isr': '1',
    'group.initial.rebalance.delay.ms': '0',
    'group.min.session.timeout.ms': '500',
    // A broker that was killed may register again only when its session has ended.
    'broker.session.timeout.ms': '1000',
    'broker.heartbeat.interval.ms': '200',
    'log.cleaner.dedupe.buffer.size': '2097152',
    'num.network.threads': '2',
    'num.io.threads': '4',
    'background.threads': '2',
    ...(joins === undefined ? {} : joiningProperties(joins.nodeId, port)),
    ...(secured === undefined ? {} : securedProperties(secured, { port, controllerPort, insidePort })),
    ...properties,
  }
  return Object.entries(lines)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('')
}

function joiningProperties(nodeId: number, port: number): Record<string, string> {
  return {
    'process.roles': 'broker',
    'node.id': String(nodeId),
    listeners: `PLAINTEXT://127.0.0.1:${port}`,
  }
}

/** Three brokers, the first of them also the controller; positions and topics are held by all three. */
export async function startKafkaCluster(): Promise<KafkaServer[]> {
  const properties = { 'offsets.topic.replication.factor': '3', 'controlled.shutdown.enable': 'true' }
  const first = await startKafka({ properties })
  const { controllerPort } = first
  const others = [2, 3].map(nodeId => startKafka({ properties, joins: { nodeId, controllerPort } }))
  return [first, ...(await Promise.all(others))]
}

function securedProperties(
  { certificate, key, user, password }: Secured,
  { port, controllerPort, insidePort }: Readonly<Record<'port' | 'controllerPort' | 'insidePort', number>>,
): Record<string, string> {
  const login = 'org.apache.kafka.common.security.plain.PlainLoginModule required'
  return {
    listeners: `SECURED://127.0.0.1:${port},INSIDE://127.0.0.1:${insidePort},CONTROLLER://127.0.0.1:${controllerPort}`,
    'advertised.listeners': `SECURED://127.0.0.1:${port},INSIDE://127.0.0.1:${insidePort}`,
    'inter.broker.listener.name': 'INSIDE',
    'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,INSIDE:PLAINTEXT,SECURED:SASL_SSL',
    'listener.name.secured.sasl.enabled.mechanisms': 'PLAIN',
    'listener.name.secured.plain.sasl.jaas.config': `${login} user_${user}="${password}";`,
    'listener.name.secured.ssl.keystore.type': 'PEM',
    'listener.name.secured.ssl.keystore.certificate.chain': certificate,
    'listener.name.secured.ssl.keystore.key': key,
  }
}

const LOGGING = `<Configuration status="error">
  <Appenders><Console name="out"><PatternLayout pattern="%d{HH:mm:ss.SSS} %p %m %ex{3}%n"/></Console></Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
`
