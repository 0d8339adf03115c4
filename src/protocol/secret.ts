// The part of a secret that can be masked in an output. The gateway warns about others when a
// secret is set; the runner masks it.

/**
 * Shortest text that is masked, in characters: a shorter one would match ordinary words of an
 * output.
 */
export const minSecretLength = 6;

/**
 * Returns the lines of a value without the blanks around them: an output is searched line by line.
 */
export function linesOf(value: string): string[] {
  return value.split(/\r\n|\n|\r/).map((line) => line.trim());
}

/** Whether any line of the value is long enough to be masked. */
export function isMaskable(value: string): boolean {
  return linesOf(value).some((line) => line.length >= minSecretLength);
}
