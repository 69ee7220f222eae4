/**
 * The vertex shader: one Gaussian becomes a quadrilateral on the screen, by the rules of INRIA's rasterizer.
 *
 * Notation as in EWA splatting (Zwicker et al. 2001): with `u` the two rows of J W R S, the covariance on the screen is
 * u uᵀ + 0.3 I. Its determinant comes from the minors of u, in which nothing cancels along a needle.
 *
 * @param {number} degree of the spherical harmonics
 * @param {number} texels of 16 bytes a Gaussian in `harmonics`
 * @param {number} row Gaussians in a row of the textures
 */
export const gaussianVertexShader = (degree, texels, row) => `#version 300 es
precision highp usampler2D;
uniform usampler2D shapes, harmonics;
uniform mat3 axes;
uniform vec3 eye;
uniform vec2 focal, center, size;
uniform float nearPlane, swelling, logitOffset;
layout(location = 0) in vec2 corner;
layout(location = 1) in uint slot;
out vec2 deviations;
flat out vec4 color, tiles;

uvec4 packed[${Math.max(texels, 1)}];
float number(int i) { return unpackHalf2x16(packed[i >> 3][(i >> 1) & 3])[i & 1]; }
vec3 c(int k) { return vec3(number(3 * k - 3), number(3 * k - 2), number(3 * k - 1)); }

vec3 shade(ivec2 at, vec3 dc, vec3 v) {
  float x = v.x, y = v.y, z = v.z, xx = x * x, yy = y * y, zz = z * z;
  vec3 sum = 0.5 + 0.2820948 * dc;
  for (int t = 0; t < ${texels}; t++) packed[t] = texelFetch(harmonics, ivec2(${texels} * at.x + t, at.y), 0);
  if (${degree} > 0) sum += 0.48860251 * (z * c(2) - y * c(1) - x * c(3));
  if (${degree} > 1) sum += 1.09254843 * (x * y * c(4) - y * z * c(5) - x * z * c(7))
    + 0.31539157 * (2.0 * zz - xx - yy) * c(6) + 0.54627422 * (xx - yy) * c(8);
  if (${degree} > 2) sum += 2.8906114 * x * y * z * c(10) + 1.4453057 * z * (xx - yy) * c(14)
    - 0.5900436 * (y * (3.0 * xx - yy) * c(9) + x * (xx - 3.0 * yy) * c(15))
    - 0.4570458 * (4.0 * zz - xx - yy) * (y * c(11) + x * c(13))
    + 0.37317633 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy) * c(12);
  return max(sum, 0.0);
}

// What a Gaussian's rotation turns into v; m is that rotation's modified Rodrigues vector.
vec3 turnedBack(vec3 v, vec3 m) {
  float square = dot(m, m);
  return v + 4.0 / ((1.0 + square) * (1.0 + square)) * cross(m, 2.0 * cross(m, v) - (1.0 - square) * v);
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  ivec2 at = ivec2(slot % ${row}u, slot / ${row}u);
  uvec4 first = texelFetch(shapes, ivec2(3 * at.x, at.y), 0);
  uvec4 second = texelFetch(shapes, ivec2(3 * at.x + 1, at.y), 0);
  uvec4 third = texelFetch(shapes, ivec2(3 * at.x + 2, at.y), 0);
  vec4 place = uintBitsToFloat(first);
  vec3 ray = place.xyz - eye, p = ray * axes;
  if (!(p.z > nearPlane)) return;
  float alpha = place.w;
  if (logitOffset != 0.0) alpha = alpha / (alpha + (1.0 - alpha) * exp(-logitOffset));
  if (!(alpha * 255.0 > 1.0)) return;

  // INRIA's clamp of the Jacobian: 0.15 of the picture beyond either edge.
  vec2 ratio = p.xy / p.z;
  vec2 clamped = clamp(ratio, (-0.15 * size - center) / focal, (1.15 * size - center) / focal);
  vec3 m = uintBitsToFloat(second.xyz), scales = swelling * uintBitsToFloat(third.xyz) / p.z;
  vec3 u0 = focal.x * scales * turnedBack(axes[0] - clamped.x * axes[2], m);
  vec3 u1 = focal.y * scales * turnedBack(axes[1] - clamped.y * axes[2], m), minors = cross(u0, u1);
  float xx = dot(u0, u0) + 0.3, xy = dot(u0, u1), yy = dot(u1, u1) + 0.3;
  float determinant = dot(minors, minors) + 0.3 * (dot(u0, u0) + dot(u1, u1)) + 0.09;

  // The axes of the ellipse, as far as alpha stays above 1/255.
  float middle = 0.5 * (xx + yy), lean = 0.5 * (xx - yy);
  float longest = middle + sqrt(lean * lean + xy * xy), shortest = determinant / longest;
  vec2 axis = lean > 0.0 ? vec2(longest - yy, xy) : vec2(xy, longest - xx);
  axis = dot(axis, axis) > 1e-12 ? normalize(axis) : vec2(1, 0);
  vec2 pixel = ratio * focal + center;
  float reach = sqrt(2.0 * log(alpha * 255.0)) + 0.01;
  if (!(longest < 1e12) || any(greaterThan(abs(pixel - 0.5 * size), 0.5 * size + reach * sqrt(longest)))) return;
  deviations = reach * corner;
  vec2 shown = pixel + deviations.x * sqrt(longest) * axis + deviations.y * sqrt(shortest) * vec2(-axis.y, axis.x);
  gl_Position = vec4(2.0 * shown / size - 1.0, 0.0, 1.0);

  // It belongs to the tiles of 16 pixels that the square of three deviations meets.
  float radius = ceil(3.0 * sqrt(middle + sqrt(max(0.1, middle * middle - determinant))));
  tiles = vec4(floor((pixel - 0.5 - radius) / 16.0), floor((pixel + 14.5 + radius) / 16.0)) * 16.0;
  vec3 dc = vec3(unpackHalf2x16(second.w), unpackHalf2x16(third.w).x);
  color = vec4(shade(at, dc, normalize(ray)), alpha);
}`;

export const GAUSSIAN_FRAGMENT_SHADER = `#version 300 es
precision highp float;
in vec2 deviations;
flat in vec4 color, tiles;
out vec4 pixel;
void main() {
  float alpha = min(0.99, color.a * exp(-0.5 * dot(deviations, deviations)));
  vec2 at = gl_FragCoord.xy;
  if (alpha < 1.0 / 255.0 || any(lessThan(at, tiles.xy)) || any(greaterThan(at, tiles.zw))) discard;
  pixel = vec4(color.rgb * alpha, alpha);
}`;

/** A triangle that covers the screen. */
export const SCREEN_VERTEX_SHADER = `#version 300 es
out vec2 place;
void main() {
  place = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0;
  gl_Position = vec4(2.0 * place - 1.0, 0.0, 1.0);
}`;

/** Puts one or two pictures, whose first row is the top one, on the screen. */
export const SCREEN_FRAGMENT_SHADER = `#version 300 es
precision highp float;
uniform sampler2D first, second;
uniform vec3 background;
uniform float mode, split, gain;
in vec2 place;
out vec4 pixel;
vec3 over(sampler2D picture) {
  vec4 color = texture(picture, vec2(place.x, 1.0 - place.y));
  return clamp(color.rgb + background * (1.0 - color.a), 0.0, 1.0);
}
void main() {
  vec3 color;
  if (mode == 0.0) color = over(first);
  else if (mode == 1.0) color = over(second);
  else if (mode == 3.0) color = gain * abs(over(first) - over(second));
  else {
    color = place.x < split ? over(first) : over(second);
    if (abs(place.x - split) < 0.6 * fwidth(place.x)) color = vec3(1);
  }
  pixel = vec4(color, 1);
}`;
