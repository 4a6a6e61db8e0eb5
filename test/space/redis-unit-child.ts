/**
 * A process of its own with a space, for tests that kill or freeze it: `redis-unit-child.js <url> <prefix>`. Does what its
 * parent asks, one after the other, and answers `{answer}` or `{error}`.
 */
import { pino } from 'pino'
import type { Presence } from '../../model/device-state.ts'
import type { Message } from '../../model/message.ts'
import { openRedisSpace } from '../../space/redis-space.ts'
import type { Rebuild } from '../../space/space.ts'

export type Asked =
  | { readonly ask: 'merge'; readonly messages: readonly Message[] }
  | { readonly ask: 'presence'; readonly changes: readonly Presence[] }
  | { readonly ask: 'begin rebuild' | 'finish rebuild' | 'close' }
  | { readonly ask: 'take'; readonly client: string }
  | { readonly ask: 'taken' }

const [url = '', prefix = ''] = process.argv.slice(2)
const log = pino({ level: 'silent' })
const space = await openRedisSpace({ url, prefix, ca: null, devicesMax: 1_000_000, unit: true, log })
const taken: string[] = []
let rebuild: Rebuild | null = null
space.sessions.onTaken(async client => {
  taken.push(client)
  return true
})
process.on('message', (asked: Asked) => {
  perform(asked).then(
    answer => process.send?.({ answer: answer ?? null }),
    error => process.send?.({ error: String(error) }),
  )
})
process.send?.({ unit: space.unit })

async function perform(asked: Asked): Promise<unknown> {
  switch (asked.ask) {
    case 'merge':
      await space.merge(asked.messages)
      return space.settled()
    case 'presence':
      await space.mergePresence(asked.changes)
      return space.settled()
    case 'begin rebuild':
      rebuild = await space.claimRebuild()
      return rebuild !== null
    case 'finish rebuild':
      return rebuild?.finish()
    case 'take':
      return space.sessions.take(asked.client)
    case 'taken':
      return taken
    case 'close':
      return space.close()
  }
}
