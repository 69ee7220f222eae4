// A camera of a cameras.json, x right, y down, z forward, as viewers want theirs: x right, y up, z backward.

/** The matrix from the camera to the world, column by column. */
export function matrixOf({ rotation, position }) {
  const axis = (column, sign) => [0, 1, 2].map((row) => sign * rotation[row][column]);
  return [...axis(0, 1), 0, ...axis(1, -1), 0, ...axis(2, -1), 0, ...position, 1];
}

export const verticalDegrees = ({ height, fy }) => (2 * Math.atan(height / 2 / fy) * 180) / Math.PI;

export const aspectOf = ({ width, height, fx, fy }) => width / fx / (height / fy);

/** Which way a file's axes are turned to INRIA's: about x for SPZ that is read as it stands, about z for glTF. */
export const turnOf = (turn) => ({ none: [0, 0, 0], x: [Math.PI, 0, 0], z: [0, 0, Math.PI] })[turn];

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
