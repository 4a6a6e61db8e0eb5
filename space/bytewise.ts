/** The order of device ids and metric names: bytewise, as ClickHouse and Redis have it. */

/** Order of the UTF-8 bytes of two texts, without making them: negative, zero or positive. */
export function compareBytewise(a: string, b: string): number {
  const chars = Math.min(a.length, b.length)
  for (let at = 0; at < chars; at++) {
    const unitA = a.charCodeAt(at)
    const unitB = b.charCodeAt(at)
    if (unitA !== unitB) return inByteOrder(unitA) - inByteOrder(unitB)
  }
  return a.length - b.length
}

/** UTF-16 puts surrogates, halves of what is above U+FFFF, before U+E000; their bytes come after U+FFFF. */
function inByteOrder(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit
}
