/**
 * What goes wrong with Redis, in our words. An error of ioredis carries the command with its arguments, readings and the
 * password among them: it goes no further than this file, only its name and text do.
 */
import { SurgetankError } from '../errors.ts'

/** Beginnings of replies by which Redis asks to try again later. */
const LATER = /^(OOM|LOADING|BUSY|CLUSTERDOWN|MASTERDOWN|READONLY|TRYAGAIN|NOREPLICAS|MISCONF|MOVED|ASK|UNBLOCKED)\b/
/** By which it refuses who asks. */
const REFUSED = /^(WRONGPASS|NOAUTH|NOPERM|ERR AUTH|ERR invalid password)\b/

/** `cause` of what it returns: the name of the foreign error, and its text on one line, without a period at its end. */
export function translateRedisError(error: unknown, doing: string): SurgetankError {
  if (error instanceof SurgetankError) return error
  const foreign = error instanceof Error ? error : new Error(String(error))
  const text = textOf(foreign)
  const cause = Object.assign(new Error(text), { name: foreign.name })
  if (REFUSED.test(text)) {
    const advice = 'Check the user in REDIS_URL, and the password there or in SURGETANK_REDIS_PASSWORD.'
    return new SurgetankError('space_misconfigured', `It refused ${doing}: ${text}. ${advice}`, cause)
  }
  if (foreign.name === 'ReplyError' && !asksToWait(text)) {
    return new SurgetankError('space_refuses', `${doing}: ${text}`, cause)
  }
  return new SurgetankError('space_unavailable', `${doing}: ${text}`, cause)
}

function textOf(error: Error): string {
  // A name with several addresses, none of which answers, has a text for each.
  const text = error instanceof AggregateError ? error.errors.map(({ message }) => message).join(', ') : error.message
  return text.replace(/\s*\n.*$/s, '').replace(/(\. Please report this)?\.$/, '')
}

/** True when a reply, or an error within a script's reply, means that the same may work later. */
export function asksToWait(message: string): boolean {
  return LATER.test(message.replace(/^(ERR |-)/, '')) || message.includes('OOM command not allowed')
}

/** True when a replica refuses to write. */
export function isOfReplica(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith('READONLY')
}
