import type { KafkaClient } from './kafka-client.ts'
import { unavailable } from './kafka-errors.ts'
import { beginningAt, fetchPositions, type Position, sourceOf } from './kafka-positions.ts'
import type { KafkaReader } from './kafka-reader.ts'
import type { LogTopic } from './kafka-topics.ts'
import type { PartitionPlace } from './pump.ts'

/** A place with what the writers counted. */
export type CountedPlace = PartitionPlace & Position

/**
 * Where each partition begins, ends and was committed last. The positions are asked for first: the log only grows, so what
 * they name lies before the ends. Rejects with `log_unavailable`.
 */
export async function fetchPlaces(client: KafkaClient, reader: KafkaReader, topic: LogTopic): Promise<CountedPlace[]> {
  const partitions = reader.partitions()
  const positions = await fetchPositions(client, topic, partitions)
  const firsts = await reader.firsts(partitions)
  const ends = await reader.ends(partitions)
  return partitions.map(partition => {
    const first = firsts.get(partition) ?? 0
    const end = ends.get(partition)
    if (end === undefined) throw unavailable(`Where partition ${partition} ends is not known.`)
    const position = positions.get(partition) ?? beginningAt(first)
    return { partition, source: sourceOf(topic, partition), first, end, committed: position.position, ...position }
  })
}

/** Records that the writers have not committed, of those that are still held. */
export function unwrittenIn({ first, committed, end }: PartitionPlace): number {
  return Math.max(0, end - Math.max(first, committed))
}
