/* ring multiplies the generator of P-256 with a table of 148 KiB, which is made for servers: it saves a device a few hundred
   microseconds of a TLS connection. In place of the two functions that use it, the linker takes this one, which hands the
   generator to ring's function for any other point, as ring itself does for P-384. That one takes the same time for every
   scalar, so it serves for secret ones too. */
#include <stdint.h>

typedef uint64_t limb;

/* The generator, both times 2^256 modulo the prime: what ring calculates with. */
static const limb X[4] = {0x79e730d418a9143c, 0x75ba95fc5fedb601, 0x79fb732b77622510, 0x18905f76a53755c6};
static const limb Y[4] = {0xddf25357ce95560a, 0x8b4ab8e4ba19e45c, 0xd2e88688dd21f325, 0x8571ff1825885d85};

/* ring's, under a name without its version. */
void rota_p256_point_mul(limb product[3][4], const limb scalar[4], const limb x[4], const limb y[4]);

void rota_p256_point_mul_base(limb product[3][4], const limb scalar[4]);

void rota_p256_point_mul_base(limb product[3][4], const limb scalar[4])
{
    rota_p256_point_mul(product, scalar, X, Y);
}
