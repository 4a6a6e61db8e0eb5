/**
 * What goes wrong with Redis, in our words. An error of ioredis carries the command with its arguments, readings and the
 * password among them: it goes no further than this file, only its name and text do.
 */
import { SurgetankError } from '../errors.ts'

/** Beginnings of replies by which Redis asks to try again later. */
const LATER = /^(OOM|LOADING|BUSY|CLUSTERDOWN|MASTERDOWN|READONLY|TRYAGAIN|NOREPLICAS|MISCONF|MOVED|ASK|UNBLOCKED)\b/
/** By which it refuses who asks. */
const REFUSED = /^(WRONGPASS|NOAUTH|NOPERM|ERR AUTH|ERR invalid password)\b/

export function translateRedisError(error: unknown, doing: string): SurgetankError {
  if (error instanceof SurgetankError) return error
  const { name, message } = error instanceof Error ? error : new Error(String(error))
  const cause = new Error(`${name}: ${message}`)
  if (REFUSED.test(message)) {
    return new SurgetankError(
      'space_misconfigured',
      `It refused ${doing}: ${message}. Check the user in REDIS_URL.`,
      cause,
    )
  }
  if (name === 'ReplyError' && !asksToWait(message)) {
    return new SurgetankError('space_refuses', `${doing}: ${message}`, cause)
  }
  return new SurgetankError('space_unavailable', `${doing}: ${message}`, cause)
}

/** True when a reply, or an error within a script's reply, means that the same may work later. */
export function asksToWait(message: string): boolean {
  return LATER.test(message.replace(/^(ERR |-)/, '')) || message.includes('OOM command not allowed')
}

/** True when a replica refuses to write. */
export function isOfReplica(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith('READONLY')
}
