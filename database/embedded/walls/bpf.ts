/**
 * An assembler for the filters of seccomp(2): classic BPF, which jumps forward only, over what the kernel shows of a system
 * call (linux/seccomp.h: the number at 0, the architecture at 4, the arguments from 16 on, 8 bytes each).
 */

/** A jump goes to a label, or on to the next step where it names none. */
export type Step =
  | { readonly do: 'load'; readonly offset: number }
  | { readonly do: 'and'; readonly value: number }
  | {
      /** `bits`: has any of these bits. */
      readonly do: 'equal' | 'atLeast' | 'bits'
      readonly value: number
      readonly yes?: string
      readonly no?: string
    }
  | { readonly do: 'answer'; readonly value: number }
  | { readonly do: 'label'; readonly name: string }

export const NUMBER_AT = 0
export const ARCHITECTURE_AT = 4

/** The low half of an argument, counted from 0: all that the kernel reads of an int. */
export function argumentAt(index: number, half: 'low' | 'high' = 'low'): number {
  return 16 + 8 * index + (half === 'high' ? 4 : 0)
}

const INSTRUCTION_BYTES = 8
const JUMP_MAX = 255
/** BPF_LD|BPF_W|BPF_ABS and its like, linux/bpf_common.h. */
const CODES = { load: 0x20, and: 0x54, equal: 0x15, atLeast: 0x35, bits: 0x45, answer: 0x06 } as const

/** An array of `struct sock_filter`: code (16 bits), steps to pass over when true and when false (8 each), value (32). */
export function assemble(steps: readonly Step[]): Buffer {
  const labels = new Map<string, number>()
  let count = 0
  for (const step of steps) {
    if (step.do === 'label') labels.set(step.name, count)
    else count++
  }
  const program = Buffer.alloc(count * INSTRUCTION_BYTES)
  let at = 0
  for (const step of steps) {
    if (step.do === 'label') continue
    const offset = at * INSTRUCTION_BYTES
    program.writeUInt16LE(CODES[step.do], offset)
    if ('yes' in step || 'no' in step) {
      program.writeUInt8(distance(labels, step.yes, at), offset + 2)
      program.writeUInt8(distance(labels, step.no, at), offset + 3)
    }
    program.writeUInt32LE(step.do === 'load' ? step.offset : step.value, offset + 4)
    at++
  }
  return program
}

function distance(labels: ReadonlyMap<string, number>, label: string | undefined, at: number): number {
  if (label === undefined) return 0
  const target = labels.get(label)
  if (target === undefined) throw new Error(`The filter has no label ${label}.`)
  const steps = target - at - 1
  if (steps < 0 || steps > JUMP_MAX) throw new Error(`The filter cannot jump ${steps} steps to ${label}.`)
  return steps
}
