/**
 * A member of a sorted set of online devices: the id, a space, and the tag of the unit that tells it, in the order of the ids.
 *
 * A space in an id is followed by `~` here. So the end of an id, a space and a hexadecimal digit of a tag, comes before a space
 * in an id, and that before every other character: the members stand in the bytewise order of their ids, also where one id
 * begins with another. An id without a space is written as earlier versions wrote all of theirs. `apply.lua` and `offline.lua`
 * write the same.
 */

/** What stands behind a space of an id; no tag begins with it. */
const MARK = '~'

/** Throws nothing: what is no member gives an id that no device has. */
export function parseMember(member: string): { readonly id: string; readonly tag: string } {
  const end = member.lastIndexOf(' ')
  const id = member.slice(0, Math.max(0, end))
  return { id: id.includes(' ') ? id.replaceAll(` ${MARK}`, ' ') : id, tag: member.slice(end + 1) }
}

/** Stands behind all members of this id, and before those of the ids that follow. */
export function endOfMembers(id: string): string {
  return `${id.replaceAll(' ', ` ${MARK}`)} ${MARK}`
}
