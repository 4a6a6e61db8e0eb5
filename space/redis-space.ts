/** Placeholder. */
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'
import type { Sessions, Space } from './space.ts'

export interface RedisSpaceOptions {
  readonly url: string
  readonly prefix: string
  /** The text of a PEM file; null for Node's own authorities. */
  readonly ca: string | null
  readonly devicesMax: number
  readonly unit: string
  readonly log: Logger
}

export async function openRedisSpace(
  _options: RedisSpaceOptions,
): Promise<Space & { readonly sessions: Sessions; readonly unit: string }> {
  throw new SurgetankError('log_unavailable', 'Redis does not answer.')
}
