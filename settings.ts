/**
 * Every setting, declared once: variable, default, range, one sentence. The types, the checks and docs/SETTINGS.md come
 * from here. `process.env` is read nowhere else. An unknown SURGETANK_* or a value out of range stops the start.
 */
import { resolve } from 'node:path'
import { SurgetankError } from './errors.ts'

interface NumberSetting {
  readonly kind: 'number'
  readonly default: number
  readonly min: number
  readonly max: number
  readonly unit: string
  readonly sentence: string
}
interface PathSetting {
  readonly kind: 'path'
  readonly default: string
  readonly sentence: string
}
interface ChoiceSetting {
  readonly kind: 'choice'
  readonly default: string
  readonly choices: readonly string[]
  readonly sentence: string
}
export type Setting = NumberSetting | PathSetting | ChoiceSetting

export const SETTINGS = {
  SURGETANK_MQTT_PORT: number(1883, 0, 65535, 'port', 'MQTT listens here, on 127.0.0.1; 0 picks a free port.'),
  SURGETANK_HTTP_PORT: number(8080, 0, 65535, 'port', 'The HTTP API listens here, on 127.0.0.1; 0 picks a free port.'),
  SURGETANK_SQL_PORT: number(
    8123,
    0,
    65535,
    'port',
    "ClickHouse's HTTP protocol listens here, on 127.0.0.1; 0 picks a free port.",
  ),
  SURGETANK_DATA_DIR: path(
    './data',
    'Everything that must survive a restart lies here: the log, the positions, ClickHouse. A local disk, not a network share.',
  ),
  SURGETANK_LOG_MB: number(
    10240,
    64,
    4_000_000,
    'MB',
    'The most that the log may hold. When it is full of readings that are not yet in ClickHouse, devices get no PUBACK until there is room.',
  ),
  SURGETANK_LOG_HOURS: number(
    24,
    0,
    8760,
    'hours',
    'How long the log keeps readings that are already in ClickHouse; never less than what is not yet written.',
  ),
  SURGETANK_INFLIGHT_PER_CLIENT: number(
    256,
    1,
    65535,
    'messages',
    'Unacknowledged messages of one connection before its socket is read more slowly.',
  ),
  SURGETANK_INFLIGHT_MB: number(
    64,
    1,
    4096,
    'MB',
    'What all unacknowledged messages may take in memory before every publishing socket is read more slowly and QoS 0 is dropped.',
  ),
  SURGETANK_CONNECTIONS_MAX: number(
    20_000,
    1,
    1_000_000,
    'connections',
    'MQTT connections at one time; more are closed at once.',
  ),
  SURGETANK_DEVICES_MAX: number(
    1_000_000,
    1,
    10_000_000,
    'devices',
    'Devices whose newest state is held; messages of further ones are quarantined.',
  ),
  SURGETANK_BATCH_ROWS: number(100_000, 1_000, 500_000, 'rows', 'The most rows of one insert into ClickHouse.'),
  SURGETANK_BATCH_MS: number(
    1_000,
    50,
    60_000,
    'ms',
    'How long readings wait for others before they are inserted into ClickHouse.',
  ),
  SURGETANK_STALE_SECONDS: number(
    900,
    1,
    31_536_000,
    's',
    'A metric that was not received for this long is marked stale in the state document.',
  ),
  SURGETANK_QUARANTINE_MB: number(
    256,
    1,
    100_000,
    'MB',
    'The most that quarantined messages may take; the oldest make room for new ones, and are counted.',
  ),
  SURGETANK_LOG_LEVEL: choice(
    'info',
    ['debug', 'info', 'warn', 'error'],
    'The least severe log line that is written to stderr.',
  ),
} as const satisfies Record<string, Setting>

export type SettingName = keyof typeof SETTINGS
export type Settings = {
  readonly [Name in SettingName]: (typeof SETTINGS)[Name] extends NumberSetting ? number : string
}

/** Settings of later adapters: known, so that they are refused in a sentence instead of being taken for nothing. */
const NOT_YET = ['KAFKA_BROKERS', 'REDIS_URL', 'CLICKHOUSE_URL']

/** The settings of this environment. Throws `setting_unknown` or `setting_invalid`, naming the variable and what it takes. */
export function readSettings(env: Readonly<Record<string, string | undefined>>): Settings {
  for (const name of Object.keys(env)) {
    if (name.startsWith('SURGETANK_') && !Object.hasOwn(SETTINGS, name)) {
      throw new SurgetankError('setting_unknown', `${name} is no setting; docs/SETTINGS.md lists them all.`)
    }
    if (NOT_YET.includes(name) && env[name] !== '') {
      throw new SurgetankError('setting_unsupported', `Unset ${name} to run on the embedded part.`)
    }
  }
  const entries = Object.entries(SETTINGS).map(([name, setting]) => [name, readSetting(name, setting, env[name])])
  return Object.fromEntries(entries) as Settings
}

function readSetting(name: string, setting: Setting, given: string | undefined): number | string {
  const text = given === undefined || given === '' ? String(setting.default) : given
  switch (setting.kind) {
    case 'path':
      return resolve(text)
    case 'choice':
      if (setting.choices.includes(text)) return text
      throw new SurgetankError('setting_invalid', `${name} is '${text}'; it takes ${setting.choices.join(', ')}.`)
    case 'number': {
      const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
      if (value >= setting.min && value <= setting.max) return value
      const range = `a whole number from ${setting.min} to ${setting.max} (${setting.unit})`
      throw new SurgetankError('setting_invalid', `${name} is '${text}'; it takes ${range}.`)
    }
  }
}

/** docs/SETTINGS.md, from the declaration. */
export function settingsPage(): string {
  const rows = Object.entries(SETTINGS).map(([name, setting]) => {
    const takes =
      setting.kind === 'number'
        ? `${setting.min}–${setting.max} ${setting.unit}`
        : setting.kind === 'choice'
          ? setting.choices.join(', ')
          : 'a path'
    return `| \`${name}\` | \`${setting.default}\` | ${takes} | ${setting.sentence} |`
  })
  return [
    '# Settings',
    '',
    'Environment variables. This page is printed from `settings.ts` by `npm run docs`; a test fails when it is stale.',
    'An unknown `SURGETANK_*` variable, or a value out of range, stops the start with a sentence that says what to do.',
    '',
    '| variable | default | takes | |',
    '|---|---|---|---|',
    ...rows,
    '',
  ].join('\n')
}

function number(byDefault: number, min: number, max: number, unit: string, sentence: string): NumberSetting {
  return { kind: 'number', default: byDefault, min, max, unit, sentence }
}

function path(byDefault: string, sentence: string): PathSetting {
  return { kind: 'path', default: byDefault, sentence }
}

function choice(byDefault: string, choices: readonly string[], sentence: string): ChoiceSetting {
  return { kind: 'choice', default: byDefault, choices, sentence }
}
