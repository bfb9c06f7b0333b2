#include "prune/streams.h"

#include "core/base/mem.h"

int streams_fit(const struct calibration *cal, int64_t n, int64_t dim, struct err *err)
{
    double need = (double)n * (double)cal->n * (double)cal->len * (double)dim * sizeof(float), have = (double)mem_available();
    if (have == 0 || need <= have) /* 0: the system does not say */
        return 0;
    return err_set(err,
                   "%lld states of %lld x %lld calibration tokens take %.1f GiB, %.1f GiB are free: fewer --samples or a shorter "
                   "--seq-len would fit",
                   (long long)n, (long long)cal->n, (long long)cal->len, need / (1 << 30), have / (1 << 30));
}
