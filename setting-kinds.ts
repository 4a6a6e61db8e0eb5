/** The kinds of settings: what text each takes, what it makes of it, and how docs/SETTINGS.md says so. */
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { resolve } from 'node:path'

export interface Setting<Value> {
  /** As it would be given; the empty text where nothing is set unless somebody sets it. */
  readonly default: string
  readonly takes: string
  readonly sentence: string
  /** Printed nowhere, not even when it is refused; may also come from the file that `<name>_FILE` names. */
  readonly secret: boolean
  /** Of text that is not empty; undefined when this setting does not take it. */
  parse(text: string): Value | undefined
  /** What an unset one without a default is. */
  readonly none: Value
}

const TEXT_CHARS_MAX = 4_096
const HOSTS_MAX = 50

/** Whole numbers. */
export function number(
  byDefault: number,
  [min, max]: readonly [number, number],
  unit: string,
  sentence: string,
): Setting<number> {
  return setting(0, String(byDefault), `a whole number from ${min} to ${max} (${unit})`, sentence, text => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    return value >= min && value <= max ? value : undefined
  })
}

export function path(byDefault: string, sentence: string): Setting<string> {
  return setting('', byDefault, 'a path', sentence, text => resolve(text))
}

export function choice<const Choice extends string>(
  byDefault: Choice,
  choices: readonly Choice[],
  sentence: string,
): Setting<Choice> {
  return setting<Choice>(byDefault, byDefault, choices.join(', '), sentence, text =>
    choices.find(known => known === text),
  )
}

export function text(byDefault: string, takes: string, pattern: RegExp, sentence: string): Setting<string> {
  return setting('', byDefault, takes, sentence, given => (pattern.test(given) ? given : undefined))
}

export function address(byDefault: string, sentence: string): Setting<string> {
  return setting('', byDefault, 'an IP address', sentence, given => (isIP(given) > 0 ? given : undefined))
}

export function hosts(sentence: string): Setting<readonly string[]> {
  return setting<readonly string[]>([], '', 'host:port, or several with commas between them', sentence, given => {
    const list = given.split(',').map(host => host.trim())
    return list.length <= HOSTS_MAX && list.every(isHost) ? list : undefined
  })
}

/** By its name, or its IPv4 address: kafkajs takes no IPv6 address written out. */
function isHost(text: string): boolean {
  const [, port] = /^[\w.-]{1,253}:(\d{1,5})$/.exec(text) ?? []
  return Number(port) >= 1 && Number(port) <= 65_535
}

/** May hold a password, so it is a secret. `pathOf` says which paths it may have; `several`, with commas between them. */
export function url(
  schemes: readonly string[],
  { pathOf, several = false }: { readonly pathOf: RegExp; readonly several?: boolean },
  sentence: string,
): Setting<string> {
  const begins = `a URL that begins with ${schemes.map(scheme => `${scheme}://`).join(' or ')}, with % in a password written as %25`
  const takes = several ? `${begins}, or several with commas between them` : begins
  return secretOf(
    setting('', '', takes, sentence, given => {
      const urls = several ? given.split(',') : [given]
      return given.length <= TEXT_CHARS_MAX && urls.every(fits) ? given : undefined
    }),
  )

  function fits(text: string): boolean {
    if (!URL.canParse(text)) return false
    const { protocol, hostname, pathname, search, hash, username, password } = new URL(text)
    const isPlain = hostname !== '' && search === '' && hash === '' && isEncoded(username) && isEncoded(password)
    return isPlain && schemes.includes(protocol.slice(0, -1)) && pathOf.test(pathname)
  }
}

/** What stands in a URL for another character is `%` and two digits, and so `%` itself is `%25`. */
function isEncoded(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}

export function secret(sentence: string): Setting<string> {
  const takes = `up to ${TEXT_CHARS_MAX} characters, none of them a control character`
  return secretOf(
    setting('', '', takes, sentence, given =>
      given.length <= TEXT_CHARS_MAX && !/[\x00-\x1f\x7f]/.test(given) ? given : undefined,
    ),
  )
}

/** What the file holds. */
export function file(sentence: string): Setting<string> {
  return setting('', '', 'a file that can be read and is not empty', sentence, given => readText(given) || undefined)
}

/** Null when it cannot be read. */
export function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

function setting<Value>(
  none: Value,
  byDefault: string,
  takes: string,
  sentence: string,
  parse: (text: string) => Value | undefined,
): Setting<Value> {
  return { none, default: byDefault, takes, sentence, secret: false, parse }
}

function secretOf<Value>(plain: Setting<Value>): Setting<Value> {
  return { ...plain, secret: true }
}
