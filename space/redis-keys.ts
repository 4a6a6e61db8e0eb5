/**
 * Where the space lies in Redis: the names of all keys and channels.
 *
 * Devices are dealt out to 16 shards by their ids. A shard's keys share a hash tag, such as `{s10}`, so that one script can touch
 * them all and a Cluster keeps them on one node. What concerns all shards, who lives and who rebuilds, has the tag `{units}`.
 */

/**
 * Hash tags, chosen so that their slots (1 in each sixteenth of the 16384) fall evenly on the nodes of a Cluster of up to 16.
 * Never change them for data that is there: a device would be looked for elsewhere.
 */
const TAGS = 's10 s21 s2 s43 s11 s20 s3 s42 s12 s23 s0 s41 s13 s22 s1 s40'.split(' ')

export const SHARDS = TAGS.length

export const ALL_SHARDS: readonly number[] = Array.from({ length: SHARDS }, (_, shard) => shard)

export interface RedisKeys {
  /** Hash: the shard's epoch, marker of a rebuild, flush numbers, counts of online devices, watched until. */
  meta(shard: number): string
  /** Sorted set, all scores 0: ids of listed devices, in bytewise order. */
  ids(shard: number): string
  /** Sorted set, all scores 0: a member (`online-member.ts`) for each listed device whose newest presence is online. */
  online(shard: number): string
  /** Hash: id → presence of devices that are not listed; and a sorted set of the same ids, by its time. */
  strangers(shard: number): string
  strangerTimes(shard: number): string
  /** Hash: the state of one device. */
  device(shard: number, id: string): string
  /** Channel: ids of devices that changed. */
  changes(shard: number): string
  /** Text: the unit that serves an MQTT client, since when, and the unit that did before. */
  session(client: string): string
  /** Text: what is kept of the session of this name, see `open-kept.lua`. */
  kept(name: string): string
  /** Sorted set: the names of a shard's sessions, by when their clients were last known to be connected. */
  keptSeen(shard: number): string
  /** Sorted set: tags of living units, by the time at which their lease ends. */
  readonly leases: string
  /** Hash: tag → up to when all that the unit, living or lost, made durable is merged. */
  readonly mergedThrough: string
  /** Hash: tag → since when the unit is lost, until when another process has it to repair, and which. */
  readonly lost: string
  /** Sorted set: tags of lost units that were repaired, by when; their flush numbers stay for as long. */
  readonly repaired: string
  /** Sorted set: `<process> <line format>` of every process, by the time until which it is taken to live. */
  readonly marks: string
  /** Text: the token of the process that rebuilds. */
  readonly rebuild: string
  /** Channel: what other units tell a unit. */
  unit(unit: string): string
}

export function openRedisKeys(prefix: string): RedisKeys {
  const tags = TAGS.map(tag => `${prefix}{${tag}}`)
  const tagOf = (shard: number) => tags[shard] as string
  return {
    meta: shard => `${tagOf(shard)}meta`,
    ids: shard => `${tagOf(shard)}ids`,
    online: shard => `${tagOf(shard)}online`,
    strangers: shard => `${tagOf(shard)}strangers`,
    strangerTimes: shard => `${tagOf(shard)}stranger-times`,
    device: (shard, id) => `${tagOf(shard)}d:${id}`,
    changes: shard => `${tagOf(shard)}changes`,
    session: client => `${tagOf(shardOf(client))}c:${client}`,
    kept: name => `${tagOf(shardOf(name))}k:${name}`,
    keptSeen: shard => `${tagOf(shard)}kept`,
    leases: `${prefix}{units}leases`,
    mergedThrough: `${prefix}{units}merged-through`,
    lost: `${prefix}{units}lost`,
    repaired: `${prefix}{units}repaired`,
    marks: `${prefix}{units}marks`,
    rebuild: `${prefix}{units}rebuild`,
    unit: unit => `${prefix}{${unit}}unit`,
  }
}

/** FNV-1a over the UTF-16 units: of an id in ASCII these are its bytes, and of any other all processes make the same. */
export function shardOf(id: string): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < id.length; at++) hash = Math.imul(hash ^ id.charCodeAt(at), 0x01000193)
  return ((hash ^ (hash >>> 15)) >>> 0) % SHARDS
}
