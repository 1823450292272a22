# families.json: families with parameters beside the mean, by glmmTMB (Laplace, observed information) at its optima.
# Run in this directory: Rscript families.R

suppressPackageStartupMessages(library(glmmTMB))
source("common.R")

sal <- read_data("Salamanders")
sleep <- read_data("sleepstudy")
cbpp <- read_data("cbpp")
cbpp$share <- (cbpp$incidence + 0.5) / (cbpp$size + 1)
positive <- sal[sal$count > 0, ]
sal$part <- pmin(sal$count, 8) / 8

tight <- glmmTMBControl(optCtrl = list(iter.max = 2000, eval.max = 4000, rel.tol = 1e-15, x.tol = 0))
answer <- function(...) {
  m <- suppressWarnings(glmmTMB(..., control = tight))
  V <- vcov(m)
  part <- function(name) {
    b <- fixef(m)[[name]]
    list(names = vec(names(b)), estimate = vec(b), se = vec(sqrt(diag(as.matrix(V[[name]])))))
  }
  sds <- function(name) vec(unlist(lapply(VarCorr(m)[[name]], function(v) attr(v, "stddev"))))
  list(log_likelihood = as.numeric(logLik(m)), cond = part("cond"),
       zi = if (length(fixef(m)$zi)) part("zi"), disp = if (length(fixef(m)$disp) > 1) part("disp"),
       sd = sds("cond"), sd_zi = if (length(VarCorr(m)$zi)) sds("zi"),
       sigma = if (length(fixef(m)$disp) > 1) NULL else sigma(m), fitted = vec(head(fitted(m), 6)),
       df = vec(unname(family_params(m))))
}

write_reference("families.json", list(
  versions = versions("glmmTMB"),
  models = list(
    beta = answer(share ~ period + (1 | herd), cbpp, family = beta_family()),
    betabinomial = answer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, family = betabinomial()),
    compois = answer(count ~ mined + (1 | site), sal[sal$spp == "DM", ], family = compois()),
    geometric = answer(count ~ mined + (1 | site), sal, family = nbinom2(), start = list(betad = 0),
                       map = list(betad = factor(NA))),
    genpois = answer(count ~ mined + (1 | site), sal, family = genpois()),
    tweedie = answer(count ~ mined + (1 | site), sal, family = tweedie()),
    t = answer(Reaction ~ Days + (1 | Subject), sleep, family = t_family()),
    ordbeta = answer(part ~ mined + (1 | site), sal, family = ordbeta(), start = list(psi = c(-1, 1))),
    zero_inflated_tweedie = answer(count ~ mined + (1 | site), sal, ziformula = ~ mined, family = tweedie()),
    truncated_poisson = answer(count ~ mined + (1 | site), positive, family = truncated_poisson()),
    truncated_nbinomial = answer(count ~ mined + (1 | site), positive, family = truncated_nbinom2()),
    zip = answer(count ~ mined + (1 | site), sal, ziformula = ~ mined, family = poisson()),
    zinb = answer(count ~ spp * mined + (1 | site), sal, ziformula = ~ spp * mined, family = nbinom2()),
    hurdle = answer(count ~ spp * mined + (1 | site), sal, ziformula = ~ spp * mined, family = truncated_nbinom2()),
    zip_random = answer(count ~ mined + (1 | site), sal, ziformula = ~ mined + (1 | site), family = poisson()),
    nb_dispersion = answer(count ~ spp + mined + (1 | site), sal, dispformula = ~ DOY, family = nbinom2()),
    gaussian_dispersion = answer(Reaction ~ Days + (Days | Subject), sleep, dispformula = ~ Days))))
