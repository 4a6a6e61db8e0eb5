/**
 * The names of metrics that were seen lately: each is checked once, kept once, and knows whether it stands in the object
 * that is being read, which finds duplicates without a set per message.
 *
 * Invariants: a name in the table is valid and shares no memory with a payload (a slice of 13 characters would keep its
 * payload of 256 KB alive). The table is a cache: it is emptied at its bound, between two messages.
 */
import { LIMITS } from '../model/limits.ts'
import { ownText } from '../model/own-text.ts'
import { quote, Refusal } from './refusal.ts'

interface Name {
  readonly text: string
  /** The object that it was last seen in, as a running number. */
  seenIn: number
}

export interface NameTable {
  /** Before each message. */
  startMessage(): void
  /** Before each object in which a metric may stand once. */
  startObject(): void
  /** The name, checked; throws Refusal when it is not valid or stands in this object already. */
  take(text: string): string
}

const NAMES_MAX = 32_768
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/

export function openNameTable(): NameTable {
  const names = new Map<string, Name>()
  let object = 0

  return { startMessage, startObject, take }

  function startMessage(): void {
    if (names.size > NAMES_MAX) names.clear()
  }

  function startObject(): void {
    object++
  }

  function take(text: string): string {
    if (text.length > LIMITS.metricNameCharsMax) refuseName(text, `longer than ${LIMITS.metricNameCharsMax} characters`)
    let name = names.get(text)
    if (name === undefined) {
      name = { text: checkName(text), seenIn: 0 }
      names.set(name.text, name)
    }
    if (name.seenIn === object) throw new Refusal('duplicate_metric', `${quote(text)} stands twice in one object.`)
    name.seenIn = object
    return name.text
  }
}

/** A copy of the name when it is valid; throws Refusal when it is not. */
export function checkName(text: string): string {
  if (text === '') refuseName(text, 'empty')
  if (text.length > LIMITS.metricNameCharsMax) refuseName(text, `longer than ${LIMITS.metricNameCharsMax} characters`)
  if (CONTROL.test(text)) refuseName(text, 'a name with control characters')
  return ownText(text)
}

function refuseName(text: string, what: string): never {
  throw new Refusal('invalid_metric_name', `The metric name ${quote(text)} is ${what}.`)
}
