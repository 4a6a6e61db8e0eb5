/**
 * Every setting, declared once: variable, default, range, one sentence. The types, the checks and docs/SETTINGS.md come
 * from here. `process.env` is read nowhere else. An unknown SURGETANK_*, a value out of range, or two that contradict each
 * other stop the start. No message holds the value of a secret.
 */
import { SurgetankError } from './errors.ts'
import type { Setting } from './setting-kinds.ts'
import * as kind from './setting-kinds.ts'

const LISTENING = {
  SURGETANK_MQTT_PORT: kind.number(1883, [0, 65535], 'port', 'MQTT listens here; 0 picks a free port.'),
  SURGETANK_HTTP_PORT: kind.number(
    8080,
    [0, 65535],
    'port',
    'The HTTP API listens here, and of a single part its health and metrics; 0 picks a free port.',
  ),
  SURGETANK_SQL_PORT: kind.number(
    8123,
    [0, 65535],
    'port',
    "The SQL port listens here, on 127.0.0.1 always: ClickHouse's HTTP protocol for analysts, in front of the embedded engine; 0 picks a free port. Not used with CLICKHOUSE_URL.",
  ),
  SURGETANK_LISTEN: kind.address('127.0.0.1', 'The address on which MQTT, the API, health and metrics listen.'),
  SURGETANK_UNAUTHENTICATED: kind.choice(
    'refuse',
    ['refuse', 'allow'],
    'There is no authentication yet. `allow` says that every peer that can reach these ports is trusted, and is needed to listen beyond 127.0.0.1, as in a container whose ports are published on 127.0.0.1 only.',
  ),
} as const

const LOG = {
  SURGETANK_DATA_DIR: kind.path(
    './data',
    'What the embedded parts must keep over a restart lies here: the log, the positions, ClickHouse. A local disk, not a network share. Made and kept 0700: only the user that runs surgetank reads it.',
  ),
  SURGETANK_LOG_MB: kind.number(
    10240,
    [64, 4_000_000],
    'MB',
    'The most that the log may hold. When it is full of readings that are not yet in ClickHouse, devices get no PUBACK until there is room.',
  ),
  SURGETANK_LOG_HOURS: kind.number(
    24,
    [0, 8760],
    'hours',
    'How long the log keeps readings that are already in ClickHouse; never less than what is not yet written.',
  ),
  SURGETANK_QUARANTINE_MB: kind.number(
    256,
    [1, 100_000],
    'MB',
    'The most that quarantined messages may take; the oldest make room for new ones, and are counted.',
  ),
} as const

const TOPIC_TAKES = 'up to 200 letters, digits, dots, underscores and hyphens'

const KAFKA = {
  KAFKA_BROKERS: kind.hosts('The log is this Kafka instead of a directory on this machine.'),
  SURGETANK_KAFKA_TOPIC: kind.text(
    'surgetank.telemetry',
    TOPIC_TAKES,
    /^(?!\.{1,2}$)[\w.-]{1,200}$/,
    'The topic of the log; made where it is missing. Names that begin with it are used beside it.',
  ),
  SURGETANK_KAFKA_PARTITIONS: kind.number(
    6,
    [1, 1_000],
    'partitions',
    'Partitions of a topic that is made: at most so many writers have work at one time.',
  ),
  SURGETANK_KAFKA_REPLICATION: kind.number(
    0,
    [0, 32],
    'replicas',
    'Replicas of a topic that is made; 0: three, or as many as there are brokers.',
  ),
  SURGETANK_KAFKA_TLS: kind.choice('no', ['no', 'yes'], 'Whether Kafka is spoken to over TLS.'),
  SURGETANK_KAFKA_CA: kind.file("The authority, in PEM, that signed the brokers' certificates; else those of Node."),
  SURGETANK_KAFKA_SASL: kind.choice(
    'none',
    ['none', 'plain', 'scram-sha-256', 'scram-sha-512'],
    'How this side proves to Kafka who it is.',
  ),
  SURGETANK_KAFKA_USER: kind.text('', 'a name', /^[^\x00-\x1f\x7f]{1,256}$/, 'The user, for SASL.'),
  SURGETANK_KAFKA_PASSWORD: kind.secret('The password, for SASL.'),
} as const

const REDIS = {
  REDIS_URL: kind.url(
    ['redis', 'rediss'],
    { pathOf: /^(\/\d{0,3})?$/, several: true },
    'The newest state is held in this Redis instead of this process. Several are nodes of one Redis Cluster.',
  ),
  SURGETANK_REDIS_PASSWORD: kind.secret('The password, where the URL holds none.'),
  SURGETANK_REDIS_PREFIX: kind.text(
    'surgetank:',
    'up to 64 letters, digits and :._-',
    /^[\w:.-]{1,64}$/,
    'What the keys in Redis begin with.',
  ),
  SURGETANK_REDIS_CA: kind.file("The authority, in PEM, that signed Redis' certificate, for rediss://."),
} as const

const CLICKHOUSE = {
  CLICKHOUSE_URL: kind.url(
    ['http', 'https'],
    { pathOf: /^\/?$/ },
    'Readings are stored in this ClickHouse server instead of the embedded engine.',
  ),
  SURGETANK_CLICKHOUSE_USER: kind.text('default', 'a name', /^[^\x00-\x1f\x7f]{1,256}$/, 'The user of the server.'),
  SURGETANK_CLICKHOUSE_PASSWORD: kind.secret('The password, where the URL holds none.'),
  SURGETANK_CLICKHOUSE_DATABASE: kind.text(
    'telemetry',
    'a name of letters, digits and underscores',
    /^[A-Za-z_]\w{0,63}$/,
    'The database of the tables; made where it is missing.',
  ),
  SURGETANK_CLICKHOUSE_CLUSTER: kind.text(
    '',
    'a name of letters, digits and ._-',
    /^[\w.-]{1,64}$/,
    'The cluster on which the tables are replicated; unset: plain tables on one server.',
  ),
  SURGETANK_CLICKHOUSE_CA: kind.file("The authority, in PEM, that signed the server's certificate, for https://."),
} as const

const PACE = {
  SURGETANK_INFLIGHT_PER_CLIENT: kind.number(
    256,
    [1, 65535],
    'messages',
    'Unacknowledged messages of one connection before its socket is read more slowly.',
  ),
  SURGETANK_INFLIGHT_MB: kind.number(
    64,
    [1, 4096],
    'MB',
    'What all unacknowledged messages may take in memory before every publishing socket is read more slowly and QoS 0 is dropped.',
  ),
  SURGETANK_CONNECTIONS_MAX: kind.number(
    20_000,
    [1, 1_000_000],
    'connections',
    'MQTT connections at one time; more are closed at once.',
  ),
  SURGETANK_SESSIONS_MAX: kind.number(
    100_000,
    [16, 10_000_000],
    'sessions',
    'Sessions of clients with clean=0 that are kept while they are away, in Redis with REDIS_URL; the one away longest makes room. About 0.5 kB each on disk (2 kB at most, on average) or in Redis; in memory 0.2 kB for each on disk, and 2.3 kB for one whose client is connected.',
  ),
  SURGETANK_SESSION_HOURS: kind.number(
    168,
    [1, 8760],
    'hours',
    'How long a session is kept after its client has left. It then connects as a new one.',
  ),
  SURGETANK_DEVICES_MAX: kind.number(
    1_000_000,
    [1, 10_000_000],
    'devices',
    'Devices whose newest state is held; messages of further ones are quarantined.',
  ),
  SURGETANK_BATCH_ROWS: kind.number(100_000, [1_000, 500_000], 'rows', 'The most rows of one insert into ClickHouse.'),
  SURGETANK_BATCH_MS: kind.number(
    1_000,
    [50, 60_000],
    'ms',
    'How long readings wait for others before they are inserted into ClickHouse.',
  ),
  SURGETANK_STALE_SECONDS: kind.number(
    900,
    [1, 31_536_000],
    's',
    'A metric that was not received for this long is marked stale in the state document.',
  ),
  SURGETANK_LOG_LEVEL: kind.choice(
    'info',
    ['debug', 'info', 'warn', 'error'],
    'The least severe log line that is written to stderr.',
  ),
} as const

const GROUPS = {
  'Where it listens': LISTENING,
  'The log, and what lies on this disk': LOG,
  'Kafka instead of the log on this disk': KAFKA,
  'Redis instead of the state in this process': REDIS,
  'A ClickHouse server instead of the embedded engine': CLICKHOUSE,
  'Bounds and pace': PACE,
} as const

export const SETTINGS = { ...LISTENING, ...LOG, ...KAFKA, ...REDIS, ...CLICKHOUSE, ...PACE } as const

export type SettingName = keyof typeof SETTINGS
export type Settings = {
  readonly [Name in SettingName]: (typeof SETTINGS)[Name] extends Setting<infer Value> ? Value : never
}

/** By the setting that names each server, all that is said of it. */
const SERVERS = [
  ['KAFKA_BROKERS', KAFKA],
  ['REDIS_URL', REDIS],
  ['CLICKHOUSE_URL', CLICKHOUSE],
] as const

type Environment = Readonly<Record<string, string | undefined>>

/**
 * The settings of this environment. Throws `setting_unknown`, `setting_invalid` or `setting_conflict`, naming the variable and
 * what it takes.
 */
export function readSettings(env: Environment): Settings {
  for (const name of Object.keys(env)) {
    if (!name.startsWith('SURGETANK_') || Object.hasOwn(SETTINGS, name) || secretOfFile(name) !== null) continue
    throw new SurgetankError('setting_unknown', `${name} is no setting; docs/SETTINGS.md lists them all.`)
  }
  const entries = Object.entries(SETTINGS).map(([name, setting]) => [name, readSetting(name, setting, env)])
  const settings = Object.fromEntries(entries) as Settings
  const conflict = CONFLICTS.find(({ holds }) => holds(settings))?.sentence ?? ofNoServer(settings)
  if (conflict !== null) throw new SurgetankError('setting_conflict', conflict)
  return settings
}

/** What is said of a server that is not named would be ignored in silence; null when there is none. */
function ofNoServer(settings: Settings): string | null {
  for (const [address, group] of SERVERS) {
    if (settings[address].length > 0) continue
    const others = Object.entries<Setting<unknown>>(group).filter(([name]) => name !== address)
    const given = others.find(([name, setting]) => settings[name as SettingName] !== byDefault(setting))
    if (given !== undefined) return `${given[0]} is set, and ${address} is not: set both, or neither.`
  }
  return null
}

function byDefault(setting: Setting<unknown>): unknown {
  return setting.default === '' ? setting.none : setting.parse(setting.default)
}

function readSetting(name: string, setting: Setting<unknown>, env: Environment): unknown {
  const given = (setting.secret ? readSecret(name, env) : env[name]) ?? ''
  const text = given === '' ? setting.default : given
  if (text === '') return setting.none
  const value = setting.parse(text)
  if (value !== undefined) return value
  const is = setting.secret ? 'has a value that it does not take' : `is '${text}'`
  throw new SurgetankError('setting_invalid', `${name} ${is}; it takes ${setting.takes}.`)
}

/** From the variable, or from the file that the variable beside it names, as containers are given their secrets. */
function readSecret(name: string, env: Environment): string | undefined {
  const path = env[`${name}_FILE`] ?? ''
  if (path === '') return env[name]
  if ((env[name] ?? '') !== '') {
    throw new SurgetankError('setting_conflict', `${name} and ${name}_FILE are both set; unset one of them.`)
  }
  const text = kind.readText(path)
  if (text === null) {
    throw new SurgetankError('setting_invalid', `${name}_FILE is '${path}'; it takes a file that can be read.`)
  }
  // An editor ends a file with a newline, and no password does.
  return text.replace(/\r?\n$/, '')
}

/** The secret whose file this variable names; null when it is no such variable. */
function secretOfFile(name: string): SettingName | null {
  const base = name.slice(0, -'_FILE'.length)
  if (!name.endsWith('_FILE') || !Object.hasOwn(SETTINGS, base)) return null
  return SETTINGS[base as SettingName].secret ? (base as SettingName) : null
}

const CONFLICTS: readonly { readonly holds: (settings: Settings) => boolean; readonly sentence: string }[] = [
  {
    holds: settings => !isLoopback(settings.SURGETANK_LISTEN) && settings.SURGETANK_UNAUTHENTICATED === 'refuse',
    sentence:
      'SURGETANK_LISTEN is reachable from other machines, and there is no authentication yet: set SURGETANK_UNAUTHENTICATED=allow if every peer that can reach these ports is trusted, or listen on 127.0.0.1.',
  },
  {
    holds: ({ SURGETANK_KAFKA_SASL: sasl, SURGETANK_KAFKA_USER: user, SURGETANK_KAFKA_PASSWORD: password }) =>
      sasl !== 'none' && (user === '' || password === ''),
    sentence: 'SURGETANK_KAFKA_SASL needs SURGETANK_KAFKA_USER and SURGETANK_KAFKA_PASSWORD.',
  },
  {
    holds: ({ SURGETANK_KAFKA_SASL: sasl, SURGETANK_KAFKA_USER: user, SURGETANK_KAFKA_PASSWORD: password }) =>
      sasl === 'none' && (user !== '' || password !== ''),
    sentence: 'A user or password for Kafka is set, and SURGETANK_KAFKA_SASL does not say how to use it.',
  },
  {
    holds: settings => settings.SURGETANK_KAFKA_CA !== '' && settings.SURGETANK_KAFKA_TLS === 'no',
    sentence: 'SURGETANK_KAFKA_CA is set without SURGETANK_KAFKA_TLS=yes.',
  },
  {
    holds: settings => settings.SURGETANK_REDIS_CA !== '' && !settings.REDIS_URL.startsWith('rediss:'),
    sentence: 'SURGETANK_REDIS_CA is set, and REDIS_URL does not begin with rediss://.',
  },
  {
    holds: settings => settings.SURGETANK_REDIS_PASSWORD !== '' && passwordIn(settings.REDIS_URL),
    sentence: 'REDIS_URL holds a password and SURGETANK_REDIS_PASSWORD is set; take one of them away.',
  },
  {
    holds: settings => settings.SURGETANK_CLICKHOUSE_CA !== '' && !settings.CLICKHOUSE_URL.startsWith('https:'),
    sentence: 'SURGETANK_CLICKHOUSE_CA is set, and CLICKHOUSE_URL does not begin with https://.',
  },
  {
    holds: settings => settings.SURGETANK_CLICKHOUSE_PASSWORD !== '' && passwordIn(settings.CLICKHOUSE_URL),
    sentence: 'CLICKHOUSE_URL holds a password and SURGETANK_CLICKHOUSE_PASSWORD is set; take one of them away.',
  },
  {
    holds: ({ SURGETANK_CLICKHOUSE_USER: user, CLICKHOUSE_URL: url }) =>
      user !== 'default' && url !== '' && new URL(url).username !== '',
    sentence: 'CLICKHOUSE_URL holds a user and SURGETANK_CLICKHOUSE_USER is set; take one of them away.',
  },
]

/** True for an address that only this machine can reach. */
export function isLoopback(address: string): boolean {
  return /^127\./.test(address) || address === '::1'
}

function passwordIn(url: string): boolean {
  return url !== '' && url.split(',').some(one => new URL(one).password !== '')
}

/** docs/SETTINGS.md, from the declaration. */
export function settingsPage(): string {
  return [
    '# Settings',
    '',
    'Environment variables. This page is printed from `settings.ts` by `npm run docs`; a test fails when it is stale.',
    'An unknown `SURGETANK_*` variable, a value out of range, or two settings that contradict each other stop the start with',
    'a sentence that says what to do.',
    '',
    'A **secret** is printed nowhere. It may come from a file instead: `SURGETANK_KAFKA_PASSWORD_FILE=/run/secrets/kafka` reads',
    '`SURGETANK_KAFKA_PASSWORD` from there, and so for each of them.',
    ...Object.entries(GROUPS).flatMap(([title, settings]) => [
      '',
      `## ${title}`,
      '',
      '| variable | default | takes | |',
      '|---|---|---|---|',
      ...Object.entries<Setting<unknown>>(settings).map(settingsRow),
    ]),
    '',
  ].join('\n')
}

function settingsRow([name, setting]: [string, Setting<unknown>]): string {
  const shown = setting.default === '' ? '' : `\`${setting.default}\``
  return `| \`${name}\` | ${shown} | ${setting.takes}${setting.secret ? '; a secret' : ''} | ${setting.sentence} |`
}
