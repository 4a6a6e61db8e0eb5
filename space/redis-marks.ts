/**
 * Who is older: each process leaves a mark in Redis with each heartbeat, `<process> <line format>`, and those from before
 * the marks leave none. A process is known to live without one by what it must have: a broker its lease, and a reader the lost
 * units that it repairs. An older reader that has nothing to repair, and an older API, leave no trace.
 */

export interface Older {
  /** Units with a broker, by name. */
  readonly brokers: readonly string[]
  /** Processes that repair lost units, by name. */
  readonly readers: readonly string[]
}

export interface Traces {
  /** `<process> <line format>` */
  readonly marks: readonly string[]
  /** Of living units: `<process>.<round>`. */
  readonly tags: readonly string[]
  /** Of lost units: since when, until when somebody has it to repair (ms, of Redis' clock), and who; as in `claim-lost.lua`. */
  readonly lost: readonly string[]
  /** ms. */
  readonly now: number
  /** The line format that is about to be written. */
  readonly lines: number
}

/** Pure. */
export function olderOf({ marks, tags, lost, now, lines }: Traces): Older {
  const ready = new Set(marks.flatMap(mark => (linesOf(mark) >= lines ? [nameOf(mark)] : [])))
  const brokers = tags.map(tag => tag.slice(0, tag.lastIndexOf('.')))
  const readers = lost.flatMap(entry => {
    const [, until = '', holder = ''] = entry.split(' ')
    return holder !== '' && Number(until) > now ? [holder] : []
  })
  const older = (names: readonly string[]) => [...new Set(names)].filter(name => !ready.has(name))
  return { brokers: older(brokers), readers: older(readers) }
}

function nameOf(mark: string): string {
  return mark.slice(0, mark.indexOf(' '))
}

function linesOf(mark: string): number {
  return Number(mark.slice(mark.indexOf(' ') + 1))
}
